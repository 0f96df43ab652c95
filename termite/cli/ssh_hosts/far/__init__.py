"""The far side of `termite-ctl add`: modules that go to a host as text, and run there.

* far_program.py answers one request, and ends.
* place.py is the directory of the worker there, bundle_files.py unpacks bundles into it.
* far_worker.py starts and ends the worker, and user_services.py does it with the user's systemd.

Do not touch: a host has no termite, so these modules import Python's own modules and each other
only. ../far_request.py sends them in the order of their imports.
"""
