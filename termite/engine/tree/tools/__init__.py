"""The room of the programs that a command finds by its search path on the master's machine.

`programs` finds those that jobs must not see, and `tool_homes` the directories that environments
need. Both read the disk, and change nothing. The room may import `logic`, and the modules on the
ground of the engine. The parent room decides with their answers what is shown.
"""
