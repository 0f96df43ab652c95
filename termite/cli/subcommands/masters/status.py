"""Show the workers of the master of the current directory, and its counters of jobs and traffic."""

import json
from argparse import Namespace
from typing import cast

from termite.cli.amounts import counted, size_text
from termite.cli.client import connect_here
from termite.cli.parser import Parser
from termite.cli.subcommands.registry import Subcommand
from termite.engine.errors import words_of
from termite.engine.status.control_requests import AskStatus, ControlAnswer
from termite.engine.status.silent_rows import silent_rows
from termite.engine.wire.protocol.foreign_text import LONGEST_LINE, printable

OF_A_LEASE = ("GetLog", "OpenLease", "Ping", "SetSlots")  # requests that belong to a lease, not to a job


def _add_flags(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print everything, as JSON")


def _run(flags: Namespace) -> int:
    status = connect_here().ask(AskStatus())
    print(json.dumps(status, indent=2) if flags.json else _status_text(status))
    return 0


def _jobs_text(jobs: dict[str, int]) -> str:
    short = jobs.get("short", 0)
    known = f"{cached} had known results, " if (cached := jobs.get("cached", 0)) else ""
    here = f"{jobs['local'] + short} on this machine ({short} of them short)"
    return f"{jobs['remote']} on workers, {here}, {known}{jobs['running']} running"


def _status_text(status: ControlAnswer) -> str:
    jobs = cast(dict[str, int], status["jobs"])
    slots = cast(dict[str, int], status["slots"])
    local = cast(dict[str, int], status["local_slots"])
    sent, received = cast(int, status["bytes_sent"]), cast(int, status["bytes_received"])
    rows = [
        ("tree", _tree_text(status)),
        ("jobs", f"{_jobs_text(jobs)}, {status['waiting']} waiting"),
        ("", f"{jobs['retried']} retried, {jobs['failed']} could not be run, {jobs['answered']} had nothing to do"),
        (
            "slots",
            f"{slots['busy']} of {slots['leased']} busy on workers; "
            f"{local['busy']} of {local['count']} on this machine",
        ),
        ("traffic", f"{size_text(sent)} sent, {size_text(received)} received"),
        ("", _requests_text(status)),
        (
            "results",
            f"{status['dropped_writes']} writes outside the tree dropped, "
            f"{status.get('sockets_left', 0)} sockets left on workers, {status['conflicts']} files written by two jobs",
        ),
    ]
    for row, counts in (("fell back", status["fallbacks"]), ("retried", status["retries"])):
        rows += [
            (row, f"{counted(count, 'time')}: {words_of(reason)}")
            for reason, count in cast(dict[str, int], counts).items()
        ]
    tied = cast(dict[str, int], status["tied"])
    rows += [("local", f"{counted(count, 'command')}: {words_of(tie)}") for tie, count in tied.items()]
    rows += _worker_rows(status) + _shared_rows(status)
    if status["elsewhere"] and not _is_moved(status):
        rows.append(("elsewhere", _elsewhere_text(str(status["elsewhere"]))))
    if status["trouble"]:
        rows.append(("trouble", str(cast(ControlAnswer, status["trouble"])["text"])))
    return "\n".join(f"{name:<10}{printable(text, LONGEST_LINE)}" for name, text in rows)


def _elsewhere_text(reason: str) -> str:
    return f"termite-ctl was {words_of(reason)}: builds that start here run on this machine"


def _is_moved(status: ControlAnswer) -> bool:
    return bool(status.get("own_path", status["root"]) != status["root"])  # a master of an earlier version has none


def _tree_text(status: ControlAnswer) -> str:
    return f"{status['own_path']}, built at {status['root']}" if _is_moved(status) else str(status["root"])


def _worker_rows(status: ControlAnswer) -> list[tuple[str, str]]:
    workers = cast(list[ControlAnswer], status["workers"])
    rows = [("worker", f"{one['name']}: {one['running']} of {one['slots']} slots busy") for one in workers]
    blind = [one["name"] for one in workers if one.get("cannot_trace")]
    rows += [("trace", f"{name} cannot note the paths of commands") for name in blind]
    rows += silent_rows(status)
    rows += [("drained", f"{name} takes no new jobs") for name in cast(list[str], status.get("drained", []))]
    if not workers:
        known = ", ".join(cast(list[str], status["known_workers"]))
        rows.append(("worker", f"none leased; known: {known or 'none'}"))
    return rows


def _shared_rows(status: ControlAnswer) -> list[tuple[str, str]]:
    """Return the row of the shared store, if there is one."""
    found = cast(ControlAnswer | None, status.get("shared_store"))
    if found is None:
        return []
    state = "does not answer" if found["is_off"] else "takes nothing from you" if found["refuses"] else "answers"
    counts = f"{counted(cast(int, found['used']), 'result')} used, {found['sent']} sent, {found['not_sent']} not sent"
    refused = f", {found['distrusted']} refused" if found["distrusted"] else ""
    return [("shared", f"{found['address']} {state}: {counts}{refused}")]


def _requests_text(status: ControlAnswer) -> str:
    """Return the mean number of requests of a job: to the worker's mirror, and on the wire."""
    remote = cast(dict[str, int], status["jobs"])["remote"]
    if not remote:
        return "no remote job yet"
    messages = cast(dict[str, int], status["messages"])
    on_wire = sum(count for kind, count in messages.items() if kind not in OF_A_LEASE)
    fuse = cast(int, status["fuse_requests"])
    return f"per remote job: {fuse / remote:.1f} FUSE requests, {on_wire / remote:.1f} requests on the wire"


SUBCOMMAND = Subcommand("show the workers, and counters of jobs and traffic", _run, _add_flags)
