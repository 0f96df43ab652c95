"""Readers of a tree's records and of a master's live stream, for the commands that show them.

* recorded_builds.py finds the records of the tree of the current directory, and jobs in them.
* file_writers.py finds who may have written a file after its newest recorded job.
* summary_file.py writes a build to the file that $TERMITE_SUMMARY names.
* web_address.py has the file in which the pages of a tree say where they are.
* live_terminal.py follows a master, or a farm, on the whole terminal.
* terminal_keys.py takes apart what a terminal sends while keys are pressed.
* farm_follower.py follows the list of workers of a coordinator, and farm_questions.py asks it.
* host_list.py has the list of the hosts that were added over ssh, and changes it for ../ssh_hosts/.

Lines and screens are computed in ../display/.
Do not touch: this room only reads records, and a coordinator or a master that is gone is no crash.
"""
