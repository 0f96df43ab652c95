"""Pages of a whole farm: a process of its own, which the coordinator starts and ends.

* farm_process.py is that process, and has the schema of what the coordinator tells it.
* farm_reader.py asks the coordinator, as any other program with the secret does.
* farm_pages.py writes HTML, farm_metrics.py the figures for programs.
* farm_site.py has the routes.

The room may import what its parent may, and the parent's modules.
Do not touch: only this process has the key with which the coordinator names users. Their names are
shown only to somebody who has the token.
"""
