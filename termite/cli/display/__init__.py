"""Texts, figures and traces that people are shown, as functions of records alone.

* job_text.py says in words where a job ran, why there, how it ended and how long it took.
* miss_text.py says why no stored result was used for a job, worker_words.py how a worker is.
* build_text.py has the lines, the markdown and the JSON of builds.
* build_figures.py computes the figures of a build: parallelism, slowest jobs, reasons.
* top_screen.py and farm_screen.py draw the screens of `termite-ctl top`.
* trace_events.py writes a build as a trace for Perfetto and Chrome.

The commands, pages and the live view share these functions.
The room may import amounts.py of cli/, and the pure parts of the engine.
Do not touch: nothing here does I/O, and the time is an argument.
"""
