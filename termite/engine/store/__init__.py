"""Store contents by their digest.

* `cas` is the content-addressed store, which all mirrors of a worker share. `cas_writer` writes one
  blob, `file_hash` hashes, and `store_calls` has the system calls.
* `verified_mark` remembers in a blob's time that it was checked, `proofs` which master has it.
* `store_upkeep` is a task beside jobs, and the only module that waits. `eviction` with
  `eviction_plan` keeps the store small, and `scrub` finds blobs that the disk has changed.

Results of commands have a store of their own on the master's machine.
The room may import the floors below it. Only mirrors, `recall` and the care of results in `master`
use it.
Do not touch: a blob gets its name only when it is complete, hashed and writable for nobody.
Nothing here may wait for a lock, because many processes use one store.
"""
