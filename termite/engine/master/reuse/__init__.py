"""The room of results that are used again: what `recall` decides is carried out here for jobs.

* `result_cache` is what all jobs share: the identity of a command, look-ups, and the queue of runs
  that are to be stored. `result_look_up` finds a result, or the reason why there is none.
* `recalled_jobs` answers a job with a stored result, and `stored_contents` gets its contents ready.
* `shared_cache` asks a shared store, and fills it.
* `short_command_recall` lets short commands be looked up, or traced, before they run here.
* `twin_jobs` lets a job wait for another one of the same command.
* `run_observer` finds what a traced run has used, and which inputs changed meanwhile.
* `ended_jobs` says what is stored of a run, and why perhaps nothing is.

The room may import everything that its parent may, and the parent's `job`, `job_reports`, `results`
and `shared`. `shared` itself imports `result_cache` and `run_observer`.
Do not touch: a doubt is a miss, and nothing here may make a job fail.
"""
