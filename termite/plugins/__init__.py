"""Built-in plugins: one for each build tool, registered as entry points in pyproject.toml.

A plugin imports only the package `termite`. Its hooks decide how commands run, and do no I/O.
"""
