"""Bring what the mirror lacks to this worker: directories into the tree, contents into the store.

Here live the fetcher (`fetch`), and the copies of files that the worker's own disk has at the same
path (`local_copy`).
The room imports `view`, and `store` and `wire` of the engine.
Do not touch: a file of this worker is offered to the master only if it is public here.
Nothing is fetched twice at once; who needs the same thing waits for the first fetch.
"""
