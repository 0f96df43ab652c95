"""Fetch small files that changed on the master's machine before a job asks for them.

A file that is on this worker can stand in a real layer, so that opening it costs no request. Some
files change often and are never read, such as the log that ninja writes after each command. The
prefetcher stops fetching such a file until a job opens it again.
"""

import logging
from collections import Counter

import trio

from termite.engine.errors import TermiteError
from termite.engine.model import Attr
from termite.fuse.content.fetch import Fetcher
from termite.fuse.view.view_tree import Tree

PREFETCHED_FILE_BYTES = 64 * 1024  # up to this size; a larger file costs more network than the requests for it
QUEUED_FILES = 1000  # waiting to be fetched; if there are more, jobs fetch what they need
CONCURRENT_FETCHES = 8  # enough to hide the round trip of a small file, few enough to leave the line to jobs
MAX_UNOPENED_VERSIONS = 2  # of one file; after so many that no job opened, the next one is not fetched
REMEMBERED_FILES = 2000  # files whose unopened versions are counted; 200 bytes each

log = logging.getLogger(__name__)


class Prefetcher:
    """The queue of files to fetch ahead, and for each file the versions fetched in vain."""

    def __init__(self, tree: Tree, fetcher: Fetcher) -> None:
        self._tree = tree
        self._fetcher = fetcher
        self._queue: dict[bytes, Attr] = {}
        self._unopened: Counter[bytes] = Counter()  # versions fetched ahead since a job last opened the file
        self._is_due = trio.Event()

    def queue(self, path: bytes, attr: Attr) -> None:
        """Queue a file whose content is not here, unless it is large, unread, or too many wait."""
        is_read = self._unopened[path] < MAX_UNOPENED_VERSIONS
        if is_read and attr.size <= PREFETCHED_FILE_BYTES and len(self._queue) < QUEUED_FILES:
            self._queue[path] = attr
            self._is_due.set()

    def note_opened(self, path: bytes) -> None:
        """Note that a job has opened this file, so that its next versions are fetched again."""
        del self._unopened[path]

    def statistics(self) -> dict[str, int]:
        """Return the number of files whose unopened versions are counted."""
        return {"unopened_files": len(self._unopened)}

    def _forget_some(self) -> None:
        """Forget the files that are gone, and the counts of all files if too few are gone."""
        self._unopened = Counter({path: count for path, count in self._unopened.items() if self._tree.truth_at(path)})
        if len(self._unopened) > REMEMBERED_FILES / 2:
            self._unopened.clear()

    async def keep_fetching(self) -> None:
        """Fetch queued files until cancelled. Log a file that cannot be fetched, and go on."""
        while True:
            await self._is_due.wait()
            self._is_due = trio.Event()
            async with trio.open_nursery() as nursery:
                for _ in range(CONCURRENT_FETCHES):
                    nursery.start_soon(self._fetch_queued)

    async def _fetch_queued(self) -> None:
        while self._queue:
            path, attr = self._queue.popitem()
            self._unopened[path] += 1
            if len(self._unopened) > REMEMBERED_FILES:
                self._forget_some()
            if self._tree.truth_at(path) is attr:
                try:
                    await self._fetcher.ahead(path, attr)
                except TermiteError as error:  # it has changed again, or a job that needs it meets the error
                    log.debug("layers-not-prefetched path=%r reason=%r", path, str(error))
                else:
                    self._tree.is_here(path, attr)
