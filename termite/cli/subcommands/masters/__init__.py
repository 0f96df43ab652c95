"""Subcommands that start, end and inspect the masters of this user.

Each module is one subcommand of the same name; ../__init__.py says how to add one. Those that ask
the master of the current directory call `connect_here` in ../../client.py.
"""
