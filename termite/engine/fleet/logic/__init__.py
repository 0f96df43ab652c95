"""The pure part of the fleet: which workers exist, and where the next lease and the next job go.

* `worker_registry` is the coordinator's list of workers; `known_workers` is that of a master, and
  decides where the next lease is opened.
* `lease_choice` chooses the lease of the next job, and `pool_config` has the settings.
* `learnt_names` checks and learns the names in traces, `result_paths` checks those of results.

Times are arguments named `now`, in seconds of the caller's monotonic clock.
The room may import `wire.protocol`, `paths`, `errors` and `model` of the engine.
Do not touch: nothing here waits, reads a file or reads a clock. The import contract "What thinks
does not wait" checks that.
"""
