"""Write the results of jobs to the user's tree, once, whenever any process is killed.

* `publication` publishes one job; `reconciliation` compares its bases with the disk first.
* `preparation` names the steps, with the directories of `target_directories` held open.
  `staging` keeps results until they are complete, on the file system that `areas` chooses.
* `kept_plans` keeps the plan on the disk, and `steps` carries it out.
* `redo` and `orphaned_plans` finish the plans of killed masters, after `change_check`.

The room may use the rest of engine/tree; only MasterTree and termite-redo use this room.
Do not touch: nothing else of termite changes the user's files.
"""
