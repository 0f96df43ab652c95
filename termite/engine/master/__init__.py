"""Run the jobs of one tree.

* `master_daemon` is the daemon, and `shared` has the state that all jobs share.
* `run_job` runs a `job` from top to bottom; `results` publishes what it has made, and `job_reports`
  counts its end. `retries` says what happens when an attempt fails, `fallback` runs the command
  here after all, and `local_jobs` starts those that are local.
* `remote_runs` has what a run on a worker needs beside the worker, and `reuse` uses stored results.
* `mirror_requests` and `control_commands` answer mirrors and `termite-ctl`; `worker_shell` runs
  shells.
* `recording` makes records of jobs, and `user_notices` notifies people of what is no single job's.

The room imports every other room of the engine except `worker`. Only the command line imports it.
Do not touch: the module `run_job` is read from top to bottom, because its steps call each other in
that order: `run_at_once`, then `run_job`, `recall_or_run`, `try_workers`, `run_remotely` and
`end_remote`. Results reach the disk only through the tree. A rule, a schedule or a format belongs
in the room that decides it.
"""
