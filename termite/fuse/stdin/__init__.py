"""Give jobs their standard input, if it is a stream that only the master's machine has.

Here live the pipe of a job with the source that asks the master (`stdin_pipe`), and the watcher
that finds a thread which waits for the pipe (`pipe_watcher`). `logic` knows the system calls, and
does no I/O.
The room imports `running_jobs` of the mirror, and `errors` and `wire` of the engine.
Do not touch: take only bytes that the job has asked for. Other programs on the master's machine
may read the same stream.
"""
