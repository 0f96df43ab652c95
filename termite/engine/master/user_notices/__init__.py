"""The room of notices to the user that concern a machine, and no single job.

A notice needs a launcher that runs now, on whose stderr it stands. The room may import what
`master` may import, and `master.shared` and `master.job`.
Do not touch: a notice never delays a job, and a launcher that is gone or stopped is no error.
"""
