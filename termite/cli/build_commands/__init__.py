"""Front ends: the commands that start a build tool so that its commands reach the launcher.

termite-make, termite-ninja, termite-cmake and termite-build live here, one module each.
front_end.py holds the parts that they share, and build_tools.py inspects tools and directories.
A new build tool needs no module here: write a plugin in termite/plugins/, and `termite-build TOOL`
starts the tool. Modules here import cli/, engine/errors.py, the pure parts of engine/decide and the
paths of our native programs.
Do not touch: every build waits for these imports, so there are few.
"""
