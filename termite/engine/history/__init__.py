"""The room of history: what each job of a tree was, where it ran and why, for people who ask later.

* `logic` has the schema, the format of the files and the events; it is pure.
* `record_writer` appends finished records to the files of a tree. Only its master does that.
* `past_builds` reads these files, and never changes them.
* `writing_lock` says whether a master writes them, and `master_mark` whether one has ended.
* `watchers` sends the events of a running master, and `live_stream` reads them.

The master masks and bounds everything before it makes a record, and readers show it as it is.
docs/develop/records.md is the manual of the schema. The room may import `decide.logic`, `wire`
and what is below them. Do not touch: the room must not know jobs, leases or launchers.
"""
