"""The room of the decision: whether a command runs on a worker or on the master's machine.

Rules, plugins, short commands, TERMITE_LOCAL and the environment of commands live here.
The room may import `loop`, `status` and the modules on the ground of the engine.
It must not start a command, open a connection or wait: the master asks it in the middle of a job.
Only `rule_file`, `short_commands` and the loading of plugins touch the disk.
"""
