"""The room of interactive shells on workers (`termite-ctl shell`).

`job_surroundings` remembers the directories and environments of the last jobs. `run_shell` runs a
shell like one of them. The room may import everything that its parent may, and the parent's
modules; `master_daemon` and `shared` import it.
Do not touch: the environments are in memory only, because they may hold credentials.
"""
