"""Readers of records, and of what a master or a coordinator says now.

* recorded_builds.py finds the records of the tree of the current directory, and jobs in them.
* suspected_writers.py finds who may have written a file after its newest recorded job.
* live_terminal.py follows a master, or a farm, on the whole terminal.
* terminal_keys.py takes apart what a terminal sends while keys are pressed.
* farm_questions.py asks a coordinator, and tells it which workers to drain. farm_follower.py
  follows its list of workers.

Lines and screens are computed in ../display/.
Do not touch: this room writes no file, and a coordinator or a master that is gone is no crash.
"""
