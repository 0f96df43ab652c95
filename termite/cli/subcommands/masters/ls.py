"""List all masters of this user, wherever their trees are, and the hosts that he has added."""

import json
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

from termite.cli.client import Client, NoMaster
from termite.cli.leftovers.footprints import is_elsewhere, living_places
from termite.cli.parser import Parser
from termite.cli.subcommands.registry import Subcommand
from termite.cli.written_files.host_list import AddedHost, added_hosts
from termite.engine.errors import RemoteProtocolError, UserError
from termite.engine.status.control_requests import AskStatus, ControlAnswer
from termite.engine.wire.protocol.foreign_text import printable

ANSWER_S = 2.0  # a master that stands still must not hide the others
_GONE = "its tree was moved or removed, and it is about to end"


class ListedMaster(NamedTuple):
    """A master that runs. `status` is its answer; None: it gave none, and `silence` says why."""

    tree: str
    pid: int
    status: ControlAnswer | None
    silence: str = ""


def _add_flags(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print a list of objects, as JSON")


def _run(flags: Namespace) -> int:
    masters = sorted(_masters(), key=lambda master: (master.tree, master.pid))
    if flags.json:
        print(json.dumps([_facts_of(master) for master in masters], indent=2))
    elif masters:
        print("\n".join(table_lines(masters, time.time())))
    else:
        print("no master of yours runs on this machine")
    if not flags.json and (hosts := added_hosts()):
        print("\n".join(["", *host_lines(hosts)]))
    return 0


def _masters() -> Iterator[ListedMaster]:
    for places in living_places():
        socket = places.get("socket")
        if not isinstance(socket, str):
            continue
        tree = str(Path(socket).parent)
        if is_elsewhere(places):
            pid = places.get("pid")
            yield ListedMaster(tree, pid if isinstance(pid, int) else 0, None, _GONE)
            continue
        try:
            client = Client(Path(socket))
        except NoMaster:  # it is starting or ending
            continue
        try:
            yield ListedMaster(tree, client.pid, client.ask(AskStatus(), ANSWER_S))
        except (UserError, RemoteProtocolError) as error:
            yield ListedMaster(tree, client.pid, None, str(error))


def _facts_of(master: ListedMaster) -> ControlAnswer:
    if master.status is None:
        return {"tree": master.tree, "pid": master.pid, "silence": master.silence}
    status = master.status
    return {"tree": master.tree, "pid": master.pid, "started": status.get("started"), "jobs": status["jobs"]}


def table_lines(masters: list[ListedMaster], now_s: float) -> list[str]:
    """Return a line for the heads of the columns, and one for each master."""
    rows = [("PID", "SINCE", "JOBS", "TREE")]
    for master in masters:
        rows.append((str(master.pid), _since(master, now_s), _jobs(master), printable(master.tree)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows]


def host_lines(hosts: tuple[AddedHost, ...]) -> list[str]:
    """Return a line for the heads of the columns, and one for each host that was added."""
    width = max(len(host.address) for host in hosts)
    heads = f"{'HOST':<{width}}  {'VERSION':<10}  COORDINATOR"
    return [
        heads,
        *(f"{host.address:<{width}}  {host.release or 'unfinished':<10}  {host.coordinator}" for host in hosts),
    ]


def _since(master: ListedMaster, now_s: float) -> str:
    """Return the time of a master's start, with the date if that was long ago."""
    started_s = cast(float | None, (master.status or {}).get("started"))
    if started_s is None:
        return "?"
    is_long_ago = now_s - started_s > 12 * 3600
    return time.strftime("%Y-%m-%d %H:%M" if is_long_ago else "%H:%M:%S", time.localtime(started_s))


def _jobs(master: ListedMaster) -> str:
    if master.status is None:
        return printable(master.silence)
    jobs = cast(dict[str, int], master.status["jobs"])
    local = jobs["local"] + jobs.get("short", 0)
    known = f"{cached} known, " if (cached := jobs.get("cached", 0)) else ""
    return f"{jobs['remote']} on workers, {local} local, {known}{jobs['running']} running"


SUBCOMMAND = Subcommand(
    "list all masters of yours on this machine, and the hosts that you have added", _run, _add_flags
)
