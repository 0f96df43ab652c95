"""Pages of a tree's builds: a process of its own that reads the records and the live stream.

* html_text.py writes HTML; pages.py and worker_pages.py write pages, as functions of records and
  of the live state.
* metrics.py writes the figures for Prometheus.
* live_follower.py follows the tree's master, and waits for the next one when it ends.
* access.py lets nobody in without the token of the printed address; forms.py takes forms.
* site.py has the routes, and serve.py listens.
* static/ has the style sheet and the script, which draws timelines; static_files.py serves them.
* farm/ has the pages of a whole farm.

The room may import everything of cli/ but the subcommands.
Do not touch: nothing here can slow a build, because the master drops events for a slow reader.
"""
