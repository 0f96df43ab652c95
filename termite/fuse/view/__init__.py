"""Decide what each job sees of the master's tree, and what it has changed. Nothing here does I/O.

* `master_facts` is what the master has said, and `view_tree` shows it in the layers of `views`.
  `moved_names` are the names that have changed since a base.
* `inodes` numbers what the kernel remembers.
* `comparison` finds what a job has changed; `linked_files` and `link_comparers` are about files
  with several names.
* `trace_names` packs the traces of jobs.

The room imports `model`, `errors`, `paths` and the messages of the engine.
Do not touch: nothing that a view has shown may ever change, because the kernel caches it forever.
If a fact is missing, the code raises `Need`, and its caller fetches the fact and calls again.
"""
