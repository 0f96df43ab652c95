"""The two scheduling devices of termite, `Leader` and `FdWatcher`, and other tools for tasks.

* `leader` lets tasks listen in turn; `fd_watcher` calls back when descriptors can be read.
* `long_work` computes in a thread, and `slot_numbers` gives running jobs numbers.
* `task_tree` shows in the log what all tasks wait for.
* `readiness` waits until descriptors can be read, in programs without tasks.

The room may import the floors below it.
Do not touch: the room must not know what is heard, neither messages nor jobs nor launchers.
Callbacks belong here and nowhere else, except if a measurement in the decisions says why.
"""
