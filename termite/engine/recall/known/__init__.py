"""The table of known tools: which results may be used again after one execution.

* `known_table` judges a command with the entries of the plugins. Others call its `proof_of_table`.
* `shell_lists` reads what a shell was told, with `shell_words` and `shell_values`.
  `shell_tools` has the entries of shells.

The room imports `paths` of the engine, the pure modules of `decide`, and `recall.logic` and
`recall.look_up`.
Do not touch: all of it is pure, and a command that no entry accepts as a whole is not known.
"""
