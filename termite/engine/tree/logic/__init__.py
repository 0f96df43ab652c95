"""Decide everything about the tree that needs no disk.

Here live the AttrTree, the exports (what a worker may read), the journal (numbered changes), the
plan of a job's changes, and result times.
The room imports `model`, `errors` and `paths` of the engine; `stat` and `errno` only for constants.
Do not touch: nothing here may wait, read the disk, or ask for the time; facts come as arguments.
A path or a change from a worker is hostile until `make_plan` has checked it.
"""
