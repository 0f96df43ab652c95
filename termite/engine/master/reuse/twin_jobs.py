"""Let a job wait for another one of the same command that runs now, instead of running it twice."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from termite.engine.master.reuse.result_look_up import ResultSource
from termite.engine.recall.look_up.evidence import judge_proof
from termite.engine.recall.look_up.stored_rows import StoredRows


class TwinJobs:
    """The commands whose results are on the way to the store, by their weak fingerprints.

    A command that runs several times at once counts from its first start to its first result.
    """

    def __init__(self) -> None:
        self._running: dict[bytes, trio.Event] = {}
        self._kept: set[bytes] = set()

    @contextmanager
    def running(self, weak: bytes) -> Iterator[None]:
        """Note that a command runs in this block. Its result may be stored later (`keep`)."""
        is_first = weak not in self._running
        if is_first:
            self._running[weak] = trio.Event()
        try:
            yield
        finally:
            if is_first and weak not in self._kept:
                self.end(weak)

    def keep(self, weak: bytes) -> None:
        """Note that a result is about to be stored. Call `end` afterwards."""
        if weak in self._running:
            self._kept.add(weak)

    def end(self, weak: bytes) -> None:
        """Wake all that wait for a command."""
        self._kept.discard(weak)
        event = self._running.pop(weak, None)
        if event is not None:
            event.set()

    async def wait_for(self, weak: bytes, source: ResultSource) -> bool:
        """Wait for the command if it runs, at most as long as it took before.

        Return whether its result may be in the store now. If no result of the command could be
        used at once, nothing waits: a first result proves nothing yet.
        """
        event = self._running.get(weak)
        if event is None:
            return False
        expected_s = _expected_s(source.store.rows(weak), source)
        with trio.move_on_after(expected_s):
            await event.wait()
        return expected_s > 0 and event.is_set()


def _expected_s(rows: StoredRows, source: ResultSource) -> float:
    """Return how long the last run took of which a new result would be used at once, or 0.0."""
    for row in rows.results:
        is_known = source.table.still_vouches(row)
        if judge_proof(source.store.shape(row.shape), b"", is_known=is_known, is_of_today=True).is_enough:
            return (row.result.ended_ns - row.result.started_ns) / 1e9
    return 0.0
