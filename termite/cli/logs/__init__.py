"""The logs of daemons, and the reports of crashes.

* log_lines.py makes a line of a record, as text or as JSON.
* rotated_file.py writes lines to a file that several processes may share, and rotates it.
* log_settings.py has the flags for logs, and sets up a daemon's log.
* crash_reports.py writes down why a program has crashed.

The room may import the modules of cli/ that front ends import, and the engine.
Do not touch: front ends import nothing from here unless they crash, because a build waits for their
imports.
"""
