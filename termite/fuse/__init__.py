"""Serve one lease of one master: show its tree to jobs, run them, and collect their results.

`mirror` is the process, `actions` one job from end to end, `running_jobs` all jobs of now, and
`worker_line` the line to the worker. Rooms below do one part each; their docstrings say which.
The package imports `errors`, `model`, `paths`, `beneath`, `loop`, `host`, `store` and `wire`.
Do not touch: all that comes from the master is hostile until checked, and so are jobs' files.
"""
