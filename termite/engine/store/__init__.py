"""Store contents by their digest.

Here lives the content-addressed store, which all mirrors of a worker share. Results of commands
have one of their own on the master's machine.
The room imports `model`, `errors` and the other floors below. Only mirrors and `recall` use it.
Do not touch: a blob gets its name only when it is complete, hashed and writable for nobody.
Nothing here may wait for a lock, because many processes use one store.
"""
