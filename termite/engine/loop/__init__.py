"""The two scheduling devices of termite: `Leader` and `FdWatcher`.

`Leader` lets tasks listen in turn; `FdWatcher` calls back when descriptors can be read.
The room may import the modules on the ground of the engine.
`task_tree` shows in the log what all tasks wait for.
Callbacks belong here and nowhere else, except if a measurement in the decisions says why.
The room must not know what is heard: neither messages nor jobs nor launchers.
"""
