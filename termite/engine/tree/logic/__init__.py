"""Decide everything about the tree that needs no disk.

* `attrs` is the AttrTree: all that mirrors were shown. `outside_entries` counts those outside the
  tree, and `failed_looks` remembers places that could not be read.
* `visibility` decides what a worker may read, and `temporary_names` what of /tmp.
* `journal` numbers changes, and `bases` judges a result by the version that it derives from.
* `plan` checks and orders a job's changes, and `redo_plan` describes them for another process.
* `times` and `access_lists` compute the time and the rights that a result gets.

The room imports `model`, `errors` and `paths` of the engine; `stat` and `errno` only for constants.
Do not touch: nothing here may wait, read the disk, or ask for the time; facts come as arguments.
A path or a change from a worker is hostile until `make_plan` has checked it.
"""
