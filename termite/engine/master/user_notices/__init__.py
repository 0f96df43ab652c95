"""The room of notices to the user that a build prints once, whatever the number of its jobs.

`notices` remembers of which files and places the user was notified. `silence_notices` is about
workers, and no single job: such a notice needs a launcher that runs now, on whose stderr it stands.
The room may import what `master` may import, and `master.shared` and `master.job`.
Do not touch: a notice never delays a job, and a launcher that is gone or stopped is no error.
"""
