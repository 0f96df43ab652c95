"""Parts that programs need to serve pages, without the server itself, which is an extra.

* pages_address.py parses the address, listens on it, and says it to people.
* pages_process.py runs the pages of a farm beside the coordinator.
* pages_start.py has the schema of what that process is told.

Do not touch: the coordinator imports this room, so nothing here may import web/ or its packages.
"""
