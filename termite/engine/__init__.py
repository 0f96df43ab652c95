"""The engine: the daemons of the master, the worker and the coordinator, and their rooms.

`model`, `errors`, `paths` and `beneath` stand on the ground, and every room may import them. The
import contract in pyproject.toml says which room may import which. The engine never imports `fuse`
or the plugins: the mirror process and the master are joined by messages.
"""
