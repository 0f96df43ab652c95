"""Run each job in a sandbox of its own, and keep the space in which jobs write.

* `sandboxes` runs jobs, in sandboxes that `spawner` and `sandbox_sources` have made before.
* `running_sandbox` follows one job. `sandbox_order` packs what it gets, and `sandbox_report` reads
  what it says at its end.
* `scratch` makes the directories in which jobs write.
* `job_uses` and `job_limits` end jobs that take too much. `shortages` and `standstill` watch for
  kills by the kernel, and for sandboxes that stand still.

The programs are those of `native/sandbox/`. The room imports `errors`, `model`, `host` and the
fields of `wire` of the engine, and no other room.
Do not touch: `sandbox_order` is the only place that packs an order. This process must not move or
remove what jobs have written, because overlayfs may hold a lock while it waits for this process.
"""
