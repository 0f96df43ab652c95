"""The room of reports: the counters of a master, and the values that `termite-ctl status` prints.

The whole room is pure. It may import `paths`, `errors` and `model` of the engine.
It must not format text for people, which is the work of `termite.cli`.
The keys of a report are stable: scripts read them with `--json`.
"""
