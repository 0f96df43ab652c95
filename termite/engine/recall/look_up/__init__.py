"""Decide whether a result of an earlier run may be used now, and say why not.

* `fingerprints` names commands and states, and `canonical_changes` brings results into one form.
* `observation` makes of a job that has ended all that is stored; `stored_rows` packs that.
* `recollection` finds a hit among stored rows, and `differences` the first reason of a miss.
* `evidence` decides which results are proved, and `clocks` knows programs whose output changes.

The room imports `model` and `recall.logic` of the engine.
It is pure: rows and facts are arguments. Do not touch: what is not in a fingerprint must be unable
to change a result. A variable that is left out is therefore also taken from the job (`UNKEYED`).
"""
