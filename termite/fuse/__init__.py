"""Serve one lease of one master: show its tree to jobs, run them, and collect their results.

`mirror` is the process, `actions` one job from end to end, `running_jobs` all jobs of now,
`job_slots` their slots and `job_terminal` their terminals. `worker_line` is the line to the worker,
and `log_questions` passes questions on to it. `kernel` answers FUSE, `view` decides what a job
sees, `content` and `layers` bring files here, `sandbox` and `stdin` run the job, `harvest`
collects.
`mirror_calls` has the system calls.
The package imports `errors`, `model`, `paths`, `beneath`, `sparse_content`, `private_directories`,
`loop`, `host`, `store` and `wire` of the engine.
Do not touch: all that comes from the master is hostile until checked, and so are jobs' files.
"""
