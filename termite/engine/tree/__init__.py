"""Know the user's files on the master's machine, and bring the results of jobs back to them.

Here live the truth and its reader, watches and hashes; file contents; staging and replay; and
`HomeTree`, which joins them. Times, order and visibility are decided in `logic`.
The room imports `model`, `errors` and `paths` of the engine. Only the master imports it.
Do not touch: `replay` alone changes the user's files, and opens them through `Disk`, never by name.
No await may stand inside a drain or a replay, because a drain must not see half of a result.
"""
