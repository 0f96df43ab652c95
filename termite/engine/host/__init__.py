"""The room of facts about this machine, whether it is a worker or a master.

* `preflight` checks before the first job that jobs can run; `native_programs` finds our programs.
* `machine` and `meminfo` read facts that commands may ask for, or that limits need.
* `process_state` and `process_exit` say how another process is, and how it has ended.
* `own_cgroup`, `ownership` and `descriptors` are about this process: its control groups, who could
  exchange its files, and how many files it may open.
* `log_tail` keeps the end of its log, `service_manager` notifies systemd.

The room may import `loop`, `status` and the floors below them.
Do not touch: the room must not know jobs, leases or connections, and it keeps no state.
Mirrors import this room too, so that it must not import `cryptography`.
"""
