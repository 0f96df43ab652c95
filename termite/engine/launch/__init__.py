"""Talk with launchers, and run local commands in their place.

* `launcher_socket` makes the socket, `socket_place` watches its path, `listener` accepts launchers.
* `connection` is the conversation with one launcher, and `launcher_calls` has its system calls.
* `invocation` parses a request, and `vantage` compares how two processes see this machine.
* `local_runs` runs commands here, with one slot for each core.
* `job_stdin` passes standard input on, `output` holds output back, and `output_tail` keeps its end.

The room may import the floors below it. Only the master and the command line import it.
Do not touch: nothing here knows the master, the fleet or the tree. Each command passes through
the listener, so no await, task or log line may be added to the path that never waits.
"""
