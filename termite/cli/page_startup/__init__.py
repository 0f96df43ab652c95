"""Parts that programs need to start the serving of pages. The server is in web/, and is an extra.

* pages_address.py parses the address, listens on it, and says it to people.
* pages_process.py runs the pages of a farm, a process of their own, beside the coordinator.
* pages_start.py has the schema of what that process is told.

Do not touch: the coordinator imports this room, so nothing here may import web/ or its packages.
"""
