"""The room of the programs that a command finds by its search path on the master's machine.

* `programs` finds those that jobs must not see, and `tool_homes` the directories that environments
  need.
* `settings_files` knows files that tools read unasked, and `entry_notes` notes entries that jobs
  would see otherwise.
* `code_links` remembers symlinks of the user that lead to hooks and start files.
* `private_entries` answers jobs that look for a name in a partly private directory, and
  `fresh_names` knows the private names of this build in temporary directories.
* `named_places` finds what variables lead to, and `hidden_entries` what a pattern of a shell would
  miss.
* `refused_entries` tells what is closed to this user from what was refused for another reason.
* `slow_mounts` finds the places at which a look may hang.

The room may import `logic`, `tree_disk`, and the floors of the engine below `tree`. The parent room
decides with its answers what is shown.
Do not touch: these modules read the disk, and change nothing.
"""
