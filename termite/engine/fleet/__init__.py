"""The room of the workers as a master and the coordinator see them.

The coordinator, a master's pool of leases, and one lease live here; `logic` decides without
waiting. The room may import `decide`, `host`, `store`, `tree`, `wire` and everything below them. It
must not import `launch`, `master` or `worker`.
Do not touch: the room does not know what a job does. The pool gives out slots, and the master uses
them. The retry of a job whose worker died is in `master.run_job`.
"""
