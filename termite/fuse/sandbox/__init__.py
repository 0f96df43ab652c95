"""Run each job in a sandbox of its own, and keep the space in which jobs write.

Here live the sandboxes with their spawner, the order and the report of a job, and the watches over
scratch space, memory and sandboxes that stand still. The programs are those of `native/sandbox/`.
The room imports `errors`, `model`, `host` and the records of `wire` of the engine, and no other
room.
Do not touch: `sandbox_order` is the only place that packs an order. This process must not move or
remove what jobs have written, because overlayfs may hold a lock while it waits for this process.
"""
