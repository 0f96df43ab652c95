"""The engine: the daemons of the master, the worker and the coordinator, and their rooms.

* `master` runs jobs, `decide` says where, `launch` talks with launchers.
* `tree` knows the user's files, and says which of them a worker may read.
* `fleet` has workers and leases as a master sees them, `worker` is the daemon on their machines.
* `history` keeps records of jobs, `recall` the results of commands that ran before.
* `wire` connects daemons, `store` keeps contents, `host` and `status` hold facts and reports.
* `loop` lets tasks take turns at listening.

`model`, `errors`, `paths`, `nearest_name`, `beneath`, `sparse_content`, `private_directories`,
`script_heads`, `socket_peers`, `look_calls` and `look_errors` stand on the floors below all rooms,
and every room may import them. The import contract in pyproject.toml says what stands on which
floor. Imports go down only.
Do not touch: the engine never imports `fuse` or the plugins, because the mirror process and the
master are joined by messages.
"""
