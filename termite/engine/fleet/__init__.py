"""The room of the workers as a master and the coordinator see them.

* `pool` has a master's leases and the jobs that wait for a slot; `lease` is one of them.
* `coordinator` is the daemon that knows all workers. `coordinator_dial` connects to it, and
  `coordinator_link` is a master's connection.
* `farm_desk`, `worker_commands` and `worker_log` answer what people ask about workers.
* `silences` knows which workers are silent, `trouble` names what last went wrong.
* `logic` decides without waiting.

The room may import `decide`, `host`, `store`, `tree`, `wire` and everything below them. It must not
import `launch`, `master` or `worker`.
Do not touch: the room does not know what a job does. The pool gives out slots, and the master uses
them. The retry of a job whose worker died is in `master`.
"""
