"""Make the lines that a front end prints at the start of a build, and its summary at the end.

After `termite: `, each line of a build that ends well begins with `started`, or with a number of
jobs or commands. Readers can thus tell these lines from errors (docs/use/reference.md).
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from termite.cli.amounts import counted
from termite.cli.places import web_address_file
from termite.engine.errors import Reason, UserError, words_of
from termite.engine.paths import is_inside
from termite.engine.status.control_requests import ControlAnswer

NAMED_MISSES = 3  # kinds of causes, of twelve
# Values of `MissCause` and of `PathEvent`. Every build waits for this module, and to import these
# would take milliseconds; a test compares them.
MISSES = {
    "never": "not run before",
    "argument": "with other words",
    "variable": "with another variable",
    "tool": "with another program",
    "content": "with another input",
    "shadow": "with a file that came or went",
    "listing": "with other names in a directory",
    "times": "with other times of files",
    "evicted": "no longer stored",
    "shape": "not proved yet",
    "gap": "not stored by the last run",
    "owners": "that may show owners of files",
}
EVENTS = {
    "written-twice": "wrote this at the same time as another one",
    "dropped": "wrote this outside the tree, where it was dropped",
    "socket-left": "left this socket on a worker",
    "later-code": "ran on this machine, because this would make code run later",
}
BY_PLACE = (Reason.WRITES_OUTSIDE.value, Reason.NAMES_PRIVATE.value)  # told for each place


def start_lines(reply: ControlAnswer) -> list[str]:
    """Return what the answer of the master to the start of a build says to the user."""
    lines = [reply["bad_rules"]] if reply.get("bad_rules") else []
    for one in reply.get("foreign", []):
        machines = f"its machine is {one['theirs']}, this one is {one['ours']}"
        lines.append(f"started without worker {one['worker']}: {machines}")
    return lines


def place_lines(end: ControlAnswer) -> tuple[list[str], list[str]]:
    """Return a line for each place outside the tree because of which commands ran here.

    The first list is for places of many commands, and says how to end that.
    """
    many, few = [], []
    for outside in end.get("outside", []):
        line = f"{_here(outside)} because of writes outside the tree, in {outside['place']}"
        if not outside["is_many"]:
            few.append(line)
        elif outside["rule"]:
            many.append(f"{line}; a rule for .termite-localrc that spares the vain runs: [{outside['rule']}]")
        else:
            many.append(f"{line}; a Local rule for them in .termite-localrc spares the vain runs")
    for private in end.get("private", []):
        line = f"{_here(private)} because of private paths, in {private['place']}"
        is_home = is_inside(os.path.expanduser("~"), str(private["place"]))  # a home is never exported as a whole
        mend = "a directory of its own for what they need" if is_home else "termite-master -export"
        (many if private["is_many"] else few).append(f"{line}; {mend} shows them to workers")
    return many, few


def edge_lines(end: ControlAnswer) -> list[str]:
    """Return a line for each job that ran twice because the build file lacks a dependency."""
    return [f"1 job ran twice: {line}" for line in end.get("missing_edges", ())]


def path_lines(end: ControlAnswer) -> list[str]:
    """Return a line for each path to which something happened, such as `3 jobs EVENT: PATH`."""
    return [
        f"{counted(named['count'], 'job')} {EVENTS.get(named['event'], named['event'])}: {named['path']}"
        for named in end["named"]
    ]


def _here(place: ControlAnswer) -> str:
    return f"{counted(place['count'], 'command')} ran on this machine"


def summary_parts(end: ControlAnswer) -> list[str]:
    """Return the parts of a build's summary: where jobs ran, then what the user should know.

    `place_lines` has what concerns places outside the tree.
    """
    fallbacks: dict[str, int] = end["fallbacks"]
    tied: dict[str, int] = end.get("tied", {})
    short, local = end.get("short", 0), end["local"]
    by_rule = local - sum(fallbacks.values()) - sum(tied.values()) + end.get("failed", 0)
    by_rule -= end.get("unseen_commands", 0)
    local_jobs = f"{short + local} on this machine ({short} short, {by_rule} by rule)"
    parts = [f"{counted(end['remote'], 'job')} ran on workers, {local_jobs}{_results(end)}"]
    told = [(tie, count) for tie, count in tied.items() if tie not in BY_PLACE]
    failed = [(reason, count) for reason, count in fallbacks.items() if reason not in BY_PLACE]
    parts += [f"{count} on this machine: {words_of(tie)}" for tie, count in told]
    # These are not a part of the jobs on this machine: with TERMITE_LOCAL=never they ran nowhere.
    parts += [f"{count} not run by a worker: {words_of(reason)}" for reason, count in failed]
    for key, text in (
        ("moved", "given to another worker"),
        ("repeated", "run again on the same worker"),
        ("reruns", "failed and run again because an input had changed"),
        ("dropped_writes", "files written outside the tree and dropped"),
        ("sockets_left", "sockets that stayed on workers"),
        ("conflicts", "files written by two jobs at once"),
        ("failed", "could not be run"),
    ):
        if end.get(key):
            parts.append(f"{text}: {end[key]}")
    return parts


def _results(end: ControlAnswer) -> str:
    """Return how many stored results were used, and why others were not, or "" without a cache."""
    cached, misses = end.get("cached", 0), end.get("misses", {})
    causes = ", ".join(f"{count} {MISSES.get(cause, cause)}" for cause, count in list(misses.items())[:NAMED_MISSES])
    missed = f" ({sum(misses.values())} not found: {causes})" if misses else ""
    return f", results of earlier runs: {cached}{missed}" if cached or misses else ""


def pages_lines(tree: Path) -> Iterator[str]:
    """Yield a line that says where the pages of a tree are served, if they are."""
    with contextlib.suppress(UserError):
        if (file := web_address_file(tree)).exists():
            from termite.cli.written_files.web_address import read_address

            if url := read_address(file):
                yield f"started pages of this build: {url}"
