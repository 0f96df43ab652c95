"""The room of recording: a master notes what happens to its jobs, and makes records of that.

* `recorder` has the calls that a job's path makes; each is a few assignments. `recorder_config`
  has its settings.
* `job_notes` and `build_notes` are what is noted, and `job_builds` knows which build a job is of.
* `authors` remembers whose results made the newest changes of files.
* `attempt_failures` says why an attempt has failed.
* `job_records` makes a record of a finished job. `record_keeper` does that in a thread, for many
  jobs at a time, and writes them.
* `fleet_view` is what the live stream says of workers and of the queue.

The schema and the files are in `history`. The room may import everything that its parent may.
Do not touch: nothing here may fail a job, wait for a disk or for a reader.
"""
