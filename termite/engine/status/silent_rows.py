"""Show silent workers in the text of `termite-ctl status`."""

from collections.abc import Mapping
from typing import cast

from termite.engine.status.report import Report

NAMED_COMMANDS = 3


def silent_rows(status: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return a row for each worker that is silent, with the commands that wait for it."""
    rows = []
    for worker in cast(list[Report], status.get("silent", [])):
        jobs = cast(list[Report], worker["jobs"])
        named = "; ".join(str(job["command"]) for job in jobs[:NAMED_COMMANDS])
        more = f" and {len(jobs) - NAMED_COMMANDS} more" if len(jobs) > NAMED_COMMANDS else ""
        waits = f"; {len(jobs)} {'command waits' if len(jobs) == 1 else 'commands wait'} for it: {named}{more}"
        rows.append(("silent", f"{worker['name']} for {worker['silent_s']:.0f} s{waits if jobs else ''}"))
    return rows
