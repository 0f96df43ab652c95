"""Pages of a whole farm: a process of its own, which the coordinator starts and ends.

* farm_process.py is that process, and has the schema of what the coordinator tells it.
* farm_reader.py asks the coordinator, as any other program with the secret does.
* farm_pages.py writes HTML, farm_metrics.py the figures for programs.
* farm_site.py has the routes.

Only this process has the key with which the coordinator names users, and it shows them only to who
has the token.
"""
