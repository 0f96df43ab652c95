"""The room of the decision: whether a command runs on a worker or on the master's machine.

* `local_or_remote` asks in turn: `logic` has its rules and ties.
* `rule_file` reads the user's rules. `loaded_plugins` calls plugins, and `hookspecs` is their
  manual.
* `command_memory` keeps how commands behaved before, for `short_commands` and `refused_commands`.
* `environment` says which variables a worker gets.
* `private_places` finds paths that jobs do not see, `outside_writes` judges writes there.
* `known_tools` is the form in which plugins vouch for tools.

The room may import `loop`, `status` and the floors below them.
Do not touch: nothing here starts a command, opens a connection or waits, because the master asks in
mid-job. Only `rule_file`, `command_memory`, `outside_writes`, `private_places` and the loading of
plugins touch the disk.
"""
