"""The room of the worker daemon, which shares this machine's slots between masters.

* `worker_daemon` listens, and starts a mirror for each master: `mirror_process`, in a directory and
  as a user of `mirror_homes`, in the control group of `job_group`. `worker_calls` has the system
  calls.
* `slot_shares` divides the slots, and `job_shares` says what jobs may take of the machine.
* `registration` keeps the worker known to its coordinator.
* `shown_log` and `reports` are what masters and people are told.

The room may import `fleet`, `host`, `store`, `wire` and everything below them. It must not import
`master`, `launch`, `tree` or `decide`.
Do not touch: this process reads no byte from a master's socket. Only the mirror process of that
master does.
"""
