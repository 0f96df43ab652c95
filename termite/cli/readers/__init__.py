"""Readers of a tree's records and of a master's live stream, for the commands that show them.

* recorded_builds.py finds the records of the tree of the current directory, and jobs in them.
* summary_file.py writes a build to the file that $TERMITE_SUMMARY names.
* live_terminal.py follows a master on the whole terminal.

What they show is computed in ../display/.
"""
