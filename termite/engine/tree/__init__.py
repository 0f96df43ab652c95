"""Know the user's files on the master's machine, and bring the results of jobs back to them.

* `master_tree` joins all the others.
* `disk_follower` keeps the AttrTree equal to the disk, with `directory_reader`, `watch` and
  `hashes`; `file_contents` has what is in the files, `volumes` where a rename cannot go.
* `publishing` writes the results of jobs, and `late_writes` keeps what programs write meanwhile.
  `tree_disk` opens and removes files by their paths, and `disk_calls` has the system calls.
* `temporary_files` says what jobs see of /tmp, and `tools` which programs of a user.
* `logic` decides times, order and visibility: `logic.visibility` says what a worker may read.

The room may import the floors below it. Only the master, `recall` and termite-redo import it.
Do not touch: only `publishing.steps` changes the user's files, and reaches them through `Disk`
alone. No await may stand inside a drain. When a publication waits, the journal has all that it has
done.
"""
