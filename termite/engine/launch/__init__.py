"""Talk with launchers, and run local commands in their place.

Here live the socket and its listener, the connection of one launcher, requests and vantages, local
runs with their slots, and a job's standard input and output.
The room imports `decide`, `host`, `wire`, `loop`, `status` and the floors below. Only the master
and the command line import it.
Do not touch: nothing here knows the master, the fleet or the tree. Each command passes through
the listener, so no await, task or log line may be added to the path that never waits.
"""
