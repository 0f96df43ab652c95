"""Pages of a tree's builds: a process of its own that reads the records and the live stream.

* html_text.py and pages.py write HTML, as functions of records and of the live state.
* metrics.py writes the figures for Prometheus.
* live_follower.py follows the tree's master, and waits for the next one when it ends.
* access.py lets nobody in without the token of the printed address.
* site.py has the routes, and serve.py listens.
* static/ has the style sheet and the script, which draws timelines.

Nothing here can slow a build: the master drops events for a reader that is slow.
"""
