"""Know the user's files on the master's machine, and bring the results of jobs back to them.

Here live the truth with its reader, watches and hashes, the file contents, staging and replay.
`MasterTree` joins them. Times, order and visibility are decided in `logic`.
The room imports `model`, `errors` and `paths` of the engine. Only the master imports it.
Do not touch: only `replay` changes the user's files, and it reaches them through `Disk` alone.
No await may stand inside a drain or a replay, because a drain must not see half of a result.
"""
