"""Front ends: the commands that start a build tool so that its commands reach the launcher.

termite-make, termite-ninja, termite-cmake and termite-build live here, one module each.
front_end.py holds the parts that they share, and build_tools.py inspects tools and directories.
Modules here import cli/, engine/errors.py, the pure parts of engine/decide and the paths of our
native programs. Every build waits for these imports, so there are few.
"""
