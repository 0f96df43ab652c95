"""The mirror process: a child of the worker daemon, which serves one lease of one master.

A mirror shows the master's tree to jobs by FUSE, runs the jobs, and collects their results.

* `mirror` is the process, `worker_line` its line to the worker, and `log_questions` passes
  questions on to it. `mirror_calls` has the system calls.
* `actions` is one job from end to end, `running_jobs` all jobs of now, `job_slots` their slots and
  `job_terminal` their terminals.
* `kernel_requests` answers FUSE, and `view` decides what a job sees. `content` and `layers` bring
  files here.
* `sandbox` and `stdin` run the job, and `harvest` collects its results.

The package imports `errors`, `model`, `paths`, `beneath`, `sparse_content`, `private_directories`,
`socket_peers`, `loop`, `host`, `store` and `wire` of the engine.
Do not touch: all that comes from the master is hostile until checked, and so are jobs' files.
"""
