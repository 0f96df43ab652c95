"""Front ends: the commands that start a build tool so that its commands reach the launcher.

* make.py, ninja.py, cmake.py and build.py are termite-make, termite-ninja, termite-cmake and
  termite-build.
* front_end.py holds the parts that they share, and front_end_help.py their help.
* tool_process.py runs the tool, and tells of a master that stands still.
* build_tools.py inspects tools and directories, callers_signals.py the signals that the caller
  ignores.
* summary_lines.py and unseen_programs.py print what follows a build.

A new build tool needs no module here: write a plugin in termite/plugins/, and `termite-build TOOL`
starts the tool. Modules here import cli/, engine/errors.py, the pure parts of engine/decide and the
paths of our native programs.
Do not touch: every build waits for these imports, so there are few.
"""
