"""Recall the results of commands that ran before, so that nothing has to run twice.

`logic` decides: from the trace of a job to its dependencies, from these to fingerprints, and from
the tree as it is now to a hit or the reason of a miss. `result_store` keeps results on the disk.
The room imports `model`, `paths`, `store` and `tree.logic` of the engine.
Only the master imports it.
Do not touch: a doubt is a miss. A wrong hit is a wrong build, and a miss only costs time.
"""
