"""The command `termite-ctl doctor`, which tries this machine and the farm, and names each fault.

* doctor_flags.py has the flags, and doctor_command.py runs the checks one after the other.
* finding.py is the result of one check, and how results are shown.
* machine_checks.py, room_checks.py and own_files.py check this machine.
* farm_checks.py checks the coordinator and each worker.
* trial_jobs.py runs one real job through a lease.
  trial_place.py has its files, and own_worker.py runs a worker for such a job on this machine.

Do not touch: each check yields findings and raises nothing, so that one fault hides no other.
"""
