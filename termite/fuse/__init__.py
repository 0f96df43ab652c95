"""Serve one lease of one master: show its tree to jobs, run them, and collect their results.

`mirror` is the process, `actions` one job from end to end, `running_jobs` all jobs of now, and
`worker_line` the line to the worker. `kernel` answers FUSE, `view` decides what a job sees,
`content` and `layers` bring files here, `sandbox` and `stdin` run the job, `harvest` collects.
The package imports `errors`, `model`, `paths`, `beneath`, `loop`, `host`, `store` and `wire`.
Do not touch: all that comes from the master is hostile until checked, and so are jobs' files.
"""
