"""Store contents by their digest.

Here lives the content-addressed store, which all mirrors of a worker share. Results of commands
have one of their own on the master's machine.
The room imports `model`, `errors` and the other floors below. Only mirrors, `recall` and the care
of results in `master` use it. `store_upkeep` is a task beside jobs, and the only module that waits.
Do not touch: a blob gets its name only when it is complete, hashed and writable for nobody.
Nothing here may wait for a lock, because many processes use one store.
"""
