"""Know the entries that the master has not listed, and that jobs see if they ask for them by name.

The journal has no changes of such an entry. Therefore a job gets no answer that is older than the
job itself. An answer may be used until the next job starts: that saves a request to the master for
each step of each path.
"""

import functools
import os
import stat
from typing import Protocol

from termite.engine.errors import Reason, Retryable
from termite.engine.model import Attr
from termite.fuse.running_jobs import JobTable


class EntrySource(Protocol):
    """The part of the Fetcher that asks the master."""

    async def entry(self, path: bytes) -> Attr | None:
        """Return the entry that the master has at a path now, or None."""


class PrivateNames:
    """The last answers about private entries that are there, by path."""

    def __init__(self, source: EntrySource, jobs: JobTable) -> None:
        self._source = source
        self._jobs = jobs
        self._known: dict[bytes, tuple[Attr, int]] = {}  # each with the number of jobs that had started before it

    async def find(self, path: bytes, thread: int) -> Attr | None:
        """Return a directory or a symlink for a request of `thread`, or None if there is neither.

        If it is another than before, the jobs that may have met that one run again: the kernel
        would fail their next looks with ESTALE. Raise what `JobTable.wait_for` raises.
        """
        started = self._jobs.started
        attr, before = self._known.get(path, (None, 0))
        if attr is not None and before == started:
            return attr
        found = await self._jobs.wait_for(thread, functools.partial(self._source.entry, path))
        attr, before = self._known.pop(path, (None, 0))
        if attr is not None and (found is None or _kind(found) != _kind(attr)):
            self._jobs.outdate(path, before)
        if found is not None:
            self._known[path] = found, max(started, before)
        return found


def refuse_fresh(fresh: frozenset[bytes], directory: bytes, name: bytes) -> None:
    """Raise Retryable if a missing name is one of `fresh`, the private ones in directories of all.

    The kernel asks for each name there, each time: its absence is not kept.
    """
    if fresh and (path := directory + b"/" + name) in fresh:
        raise Retryable(Reason.UNSEEN_PROGRAM, "/" + os.fsdecode(path))


def _kind(attr: Attr) -> tuple[int, bytes]:
    return stat.S_IFMT(attr.mode), attr.target
