"""Subcommands that concern a machine or a whole cluster, and need no master.

Each module is one subcommand of the same name; ../__init__.py says how to add one.
"""
