"""The room of runs on workers: what a command needs to get there the answers of this machine.

* `settled_check` checks the files outside the tree, for which a job waits first.
* `dispatch` makes the message that goes to a worker. `sent_contents` chooses the new files that go
  along, and `traced_jobs` whether the job is traced.
* `tool_places` shows jobs the tools that the command finds by its search path.
* `machine_questions` keeps a command that asks about its machine away from workers that would
  answer otherwise.
* `learnt_run_times` notes how long it took there, so that a short one runs on this machine.
* `late_inputs` lets a command run again whose input came too late.
* `crossed_devices` finds commands that a job's several file systems have disturbed.
* `protocol_breaches` ends the lease of a worker that breaks the protocol.
* `startable` finds out whether a command that no worker could run could start here.

The room may import everything that its parent may, and the parent's `job` and `shared`.
Do not touch: each job passes here, so nothing may ask a worker or the disk once more for it.
"""
