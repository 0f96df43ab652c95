"""Count what happens to a master's jobs, and build the values of reports from the counts.

A report is JSON for `termite-ctl`, which formats it. Its keys are stable.
"""

import enum
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from termite.engine.errors import Reason
from termite.engine.model import Verdict

NAMED_PATHS = 20  # paths that the summary of a build names
REMEMBERED_PATHS = 1000  # paths that a master counts, so that its memory does not grow with its jobs
MANY_OUTSIDE = 0.05  # of the commands of a build: then its user gets a rule that ends the vain runs

Report = dict[str, object]


class PathEvent(enum.StrEnum):
    """An event that the summary of a build names with the paths to which it happened."""

    WRITTEN_TWICE = "written-twice"  # by two jobs at once
    DROPPED = "dropped"  # written outside the tree
    SOCKET_LEFT = "socket-left"  # on its worker
    LATER_CODE = "later-code"  # a result was refused because of it


@dataclass(slots=True)
class Counters:
    """The counts of a master since its start, or of a build.

    `traced` are short commands that ran on a worker, so that their results can be stored.
    `retries` are attempts on workers that failed. After such an attempt, `moved` jobs were
    given to another worker, and `repeated` to the same one. `named` counts what happened to paths.
    """

    remote: int = 0
    local: int = 0
    short: int = 0
    cached: int = 0
    traced: int = 0
    misses: Counter[str] = field(default_factory=Counter)  # by the value of a MissCause
    retries: Counter[Reason] = field(default_factory=Counter)
    moved: int = 0
    repeated: int = 0
    failed: int = 0
    answered: int = 0
    dropped_writes: int = 0
    sockets_left: int = 0
    conflicts: int = 0
    fuse_requests: int = 0
    fallbacks: Counter[Reason] = field(default_factory=Counter)
    tied: Counter[Reason] = field(default_factory=Counter)  # local commands by the reason that ties them
    named: Counter[tuple[PathEvent, str]] = field(default_factory=Counter)
    # Local commands: by the place outside the tree that they write, by the private one they name.
    outside: Counter[str] = field(default_factory=Counter)
    private: Counter[str] = field(default_factory=Counter)
    missing_edges: Counter[str] = field(default_factory=Counter)  # lines about jobs that failed and then passed
    unseen: Counter[str] = field(default_factory=Counter)  # local commands by the program that jobs may not see

    def count_paths(self, event: PathEvent, paths: Iterable[str]) -> None:
        """Count an event for each path.

        New paths are ignored as soon as REMEMBERED_PATHS pairs of event and path are known.
        """
        for path in paths:
            if (event, path) in self.named or len(self.named) < REMEMBERED_PATHS:
                self.named[event, path] += 1

    def count_missing_edge(self, line: str) -> None:
        """Count a job that failed, and passed when an input had changed.

        New lines are ignored as soon as REMEMBERED_PATHS are known.
        """
        if line in self.missing_edges or len(self.missing_edges) < REMEMBERED_PATHS:
            self.missing_edges[line] += 1

    def count_place(self, places: Counter[str], place: str) -> None:
        """Count a command that runs locally because of `place`, in `outside` or `private`.

        New places are ignored as soon as REMEMBERED_PATHS are known.
        """
        if place in places or len(places) < REMEMBERED_PATHS:
            places[place] += 1

    def count_local(self, verdict: Verdict | None) -> None:
        """Count a command that runs locally, and the reason that ties it to this place."""
        self.local += 1
        if verdict and verdict.tie:
            self.tied[verdict.tie] += 1
            if verdict.tie is Reason.LATER_CODE:
                self.count_paths(PathEvent.LATER_CODE, [verdict.program] if verdict.program else [])
            else:
                self.count_unseen(verdict.program)

    def count_unseen(self, program: str) -> None:
        """Count a command that runs locally because of a program that jobs may not see.

        New programs are ignored as soon as REMEMBERED_PATHS are known. "" means that there is none.
        """
        if program and (program in self.unseen or len(self.unseen) < REMEMBERED_PATHS):
            self.unseen[program] += 1


def build_summary(counters: Counters) -> Report:
    """Return the summary of a build from its counters.

    `named` has an object for each path to which an event happened, with the number of times.
    """
    return {
        "remote": counters.remote,
        "local": counters.local,
        "short": counters.short,
        "cached": counters.cached,
        "misses": dict(counters.misses.most_common()),
        "retried": counters.retries.total(),
        "retries": _by_reason(counters.retries),
        "moved": counters.moved,
        "repeated": counters.repeated,
        "reruns": counters.retries[Reason.INPUT_CHANGED],
        "failed": counters.failed,
        "dropped_writes": counters.dropped_writes,
        "sockets_left": counters.sockets_left,
        "conflicts": counters.conflicts,
        "missing_edges": [*_lines(counters.missing_edges), *_rest(counters.missing_edges)],
        "fallbacks": _by_reason(counters.fallbacks),
        "tied": _by_reason(counters.tied),
        "outside": dict(counters.outside.most_common()),
        "private": dict(counters.private.most_common(NAMED_PATHS)),
        "unseen": dict(counters.unseen.most_common()),
        "named": [
            {"event": event.value, "path": path, "count": count}
            for (event, path), count in counters.named.most_common(NAMED_PATHS)
        ],
    }


def _lines(counts: Counter[str]) -> list[str]:
    """Return the most frequent lines, each with its number if it came several times."""
    return [line if count == 1 else f"{line} ({count} times)" for line, count in counts.most_common(NAMED_PATHS)]


def _rest(missing_edges: Counter[str]) -> list[str]:
    rest = len(missing_edges) - NAMED_PATHS
    return [f"missing dependencies beyond these: {rest}, see termite-ctl jobs -retried"] if rest > 0 else []


def frequent_places(places: Mapping[str, int], commands: int) -> list[str]:
    """Return the places that made more than MANY_OUTSIDE of a build's commands run locally.

    `places` has the number of commands by place, `commands` is the number of all commands.
    """
    return [place for place, count in places.items() if count > MANY_OUTSIDE * commands]


def status_report(
    counters: Counters,
    phases: Iterable[str],
    leases: Iterable[Mapping[str, object]],
    traffic: Mapping[str, int],
    messages: Mapping[str, int],
    rest: Mapping[str, object],
) -> Report:
    """Return the value that `termite-ctl status --json` prints.

    `phases` has the phase of each job that is not finished. `leases` has a mapping for each open
    lease. `traffic` (counts of requests and bytes) and `messages` (requests by kind) cover all
    leases since the start, including closed ones. `rest` has further keys of the master.
    """
    workers = [dict(lease) for lease in leases]
    return {
        "jobs": _jobs(counters, Counter(phases)),
        "slots": {"leased": _total(workers, "slots"), "busy": _total(workers, "running")},
        "workers": workers,
        "dropped_writes": counters.dropped_writes,
        "sockets_left": counters.sockets_left,
        "conflicts": counters.conflicts,
        "retries": _by_reason(counters.retries),
        "fallbacks": _by_reason(counters.fallbacks),
        "tied": _by_reason(counters.tied),
        "misses": dict(counters.misses.most_common()),
        "fuse_requests": counters.fuse_requests,
        "requests": {"answered": traffic.get("answered", 0), "asked": traffic.get("asked", 0)},
        "messages": dict(messages),
        "bytes_sent": traffic.get("sent_bytes", 0),
        "bytes_received": traffic.get("received_bytes", 0),
        **rest,
    }


def _jobs(counters: Counters, running: Counter[str]) -> Report:
    return {
        "remote": counters.remote,
        "local": counters.local,
        "short": counters.short,
        "answered": counters.answered,
        "cached": counters.cached,
        "running": running.total(),
        "retried": counters.retries.total(),
        "failed": counters.failed,
        "phases": dict(running),
    }


def _by_reason(counts: Counter[Reason]) -> dict[str, int]:
    return {reason.value: count for reason, count in counts.items()}


def _total(workers: Iterable[Mapping[str, object]], key: str) -> int:
    return sum(count for worker in workers if isinstance(count := worker.get(key), int))
