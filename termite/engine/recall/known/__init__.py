"""The table of known tools: which results may be used again after one execution.

All of it is pure. `known_table.py` judges a command with the entries of the plugins, `shell_lists`
reads what a shell was told, and `shell_tools.py` has the entries that belong to shells. Others call
`proof_of_table`.
"""
