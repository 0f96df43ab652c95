"""Files that commands write, for people or for later commands. Records and logs are elsewhere.

* summary_file.py writes a build to the file that $TERMITE_SUMMARY names.
* web_address.py has the file in which the pages of a tree say where they are.
* host_list.py has the list of the hosts that were added over ssh, and changes it for ../ssh_hosts/.

The room may import readers/, display/ and what is below them.
Do not touch: front ends import a module of this room only when they need it, because a build waits
for their imports.
"""
