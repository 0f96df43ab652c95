"""The room of reports: what programs ask a master, its counters, and the values that they get.

`control_requests` are what `termite-ctl` and the front ends ask. `report` has the counters and
builds the values that `termite-ctl status` prints; `silent_rows` shows silent workers in them.
The whole room is pure. It may import `paths`, `errors` and `model` of the engine.
Do not touch: the keys of a report are stable, because scripts read them with `--json`. Text for
people is the work of `termite.cli`, but for the rows of silent workers.
"""
