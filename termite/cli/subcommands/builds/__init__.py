"""Subcommands that show what happens to the commands of builds, and where they run.

Each module is one subcommand of the same name; ../__init__.py says how to add one.
"""
