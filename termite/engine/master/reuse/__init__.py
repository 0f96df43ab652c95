"""The room of results that are used again: what `recall` decides is carried out here for jobs.

`run_observer` finds what a traced run has used, and which inputs changed meanwhile.
The room may import everything that its parent may, and the parent's `job` and `shared`. The
parent's `shared` imports it.
Do not touch: a doubt is a miss, and nothing here may make a job fail.
"""
