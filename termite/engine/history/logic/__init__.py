"""The pure part of the room of history: values, formats and bounds, without files or clocks.

* `job_record` is the schema; `recorded_text` masks and bounds what goes into it.
* `build_tally` counts the records of a build's jobs, also if its master was killed.
* `missing_edges` says in words what the records of jobs show about the build's dependencies.
* `record_file` is the format of the files, and `kept_parts` says which of them are removed.
* `live_events` are the events of the live stream, `event_queue` bounds what waits for one reader,
  and `live_state` is the state that a reader makes of them.

The room may import `decide.logic` and `wire.protocol`, and what is below them.
Do not touch: readers of older files remain, so a field of a record is added at the end only.
"""
