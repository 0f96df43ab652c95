"""Decide what each job sees of the master's tree, and what it has changed. Nothing here does I/O.

Here live the known tree, the views with their layers and moved names, the inode table, and the
comparison of results. The room imports `model`, `errors`, `paths` and the messages of the engine.
Do not touch: nothing that a view has shown may ever change, because the kernel caches it forever.
If a fact is missing, the code raises `Need`, and its caller fetches the fact and calls again.
"""
