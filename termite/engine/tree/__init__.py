"""Know the user's files on the master's machine, and bring the results of jobs back to them.

`disk_follower` keeps the AttrTree equal to the disk, with a reader, watches and hashes;
`file_contents` has what is in the files. `publishing` writes the results of jobs. `MasterTree`
joins all of them. `logic` decides times, order and visibility; what a worker may read is in
`logic.visibility`. The room imports `model`, `errors` and `paths` of the engine. Only the master
and termite-redo import it. Do not touch: only `publishing.steps` changes the user's files, and
reaches them through `Disk` alone. No await may stand inside a drain. When a publication waits, the
journal has all that it has done.
"""
