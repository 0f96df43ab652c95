"""Recall the results of commands that ran before, so that nothing has to run twice.

* `logic` finds the dependencies of a job in its trace. `look_up` compares them with the tree of the
  moment: the answer is a hit or the reason of a miss.
* `known` is the table of tools whose results may be used after one execution.
* `fact_reader` gets the facts that these three lack.
* `ended_runs` says what of a run is stored. `result_store` keeps results on the disk, with its
  index in `result_index`, whose calls are in `result_calls`.
* `shared_store` exchanges results with other users.

The room imports `model`, `errors`, `paths`, `store` and `tree` of the engine.
Only the master imports it.
Do not touch: a doubt is a miss. A wrong hit is a wrong build, and a miss only costs time.
"""
