"""Built-in plugins: one module or package for each build tool, entry points in pyproject.toml.

make, ninja, CMake, Meson, cargo and go live here; a new front end goes here too.
`caches` is the one plugin of no tool: it names the caches that programs keep outside the tree.
A plugin's hooks say how its tool is started, and which of its commands run where.
The hooks are described in `termite/engine/decide/hookspecs.py`.
A plugin may import the package `termite`, and no other module of ours.
The hooks run inside the master: they do no I/O and do not wait.
"""
