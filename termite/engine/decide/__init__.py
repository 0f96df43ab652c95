"""The room of the decision: whether a command runs on a worker or on the master's machine.

Rules, plugins, short commands, TERMITE_LOCAL and the environment of commands live here.
`local_or_remote` asks them in turn: `logic.rules` first, then `logic.ties`.
The room may import `loop`, `status` and the modules on the ground of the engine.
Nothing here starts a command, opens a connection or waits, because the master asks in mid-job.
Only `rule_file`, `command_memory`, `outside_writes` and the loading of plugins touch the disk.
"""
