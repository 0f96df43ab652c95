"""Hosts that are reached over ssh: `termite-ctl add`, `upgrade` and `remove`.

* host_worker.py has the steps of the three commands.
* bundle_source.py finds the archive with termite that goes to a host, and packs it if needed.
* far_request.py runs the far side on a host, and ssh_faults.py says what a failure of ssh means.
* far/ is what runs there.
* host_trial.py waits until the worker is registered, and lets it run a job.

The list of hosts is in termite/cli/written_files/host_list.py, because other commands show it.
Do not touch: the secret of a farm reaches a host through standard input only.
"""
