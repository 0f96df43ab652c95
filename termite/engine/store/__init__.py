"""Store contents by their digest.

Here lives the content-addressed store, which all mirrors of a worker share.
The room imports `model`, `errors` and the other floors below. Only mirrors use it.
Do not touch: a blob gets its name only when it is complete, hashed and writable for nobody.
Nothing here may wait for a lock, because many processes use one store.
"""
