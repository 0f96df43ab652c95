"""Which commands are too short to be worth their way to a worker.

Nothing is guessed: a command goes to a worker until it has been there once, and what it took then counts, not what it
is. What the way costs is measured too: 3 ms to a worker on this machine, 25 ms to one behind a home link.
"""

import logging
import os
import time
from collections import deque
from hashlib import blake2b
from pathlib import Path
from statistics import median

import msgspec

from termite.engine.decide.environment import environment_of
from termite.engine.model import Command

# What takes less than so many times the way is short: that would cost 2 % and more. On one machine it is three times as
# much: a job elsewhere has a sandbox, too, and finds nothing of its tools in the processor's caches.
WAYS = 50
LONGEST_S = 1.0  # is not short, however long the way; unless the user says so
KNOWN_LIMIT = 50_000  # commands, some 280 bytes each; long ones are not kept
RECENT = 31  # ways, of which the median counts: one that had to fetch a compiler says nothing of the next
KEEP_S = 60 * 24 * 3600.0  # the file of a tree in which no master has ended since
ENOUGH = 5  # ways, before anything is called short

Mark = tuple[int, int]  # digests: of what a command is, and of that in the circumstances that it runs in
Known = tuple[dict[int, float], dict[int, int]]  # what it took, by the whole mark; the newest of the marks of a command

log = logging.getLogger(__name__)


class ShortCommands:
    """What commands took. `limit_s`: what takes less is short; None: that is measured; 0: nothing is.

    `store` is a file of this tree's own where it is kept over restarts, None: nowhere.
    """

    def __init__(self, limit_s: float | None = None, store: Path | None = None) -> None:
        self._limit_s = limit_s
        self._store = store
        self._took_s, self._newest = _load(store) if store else ({}, {})
        self._ways: deque[float] = deque(maxlen=RECENT)

    @property
    def is_on(self) -> bool:
        """False where nothing is ever short, so that nothing need be known."""
        return self._limit_s != 0

    @property
    def limit_s(self) -> float:
        """What takes less is short."""
        if self._limit_s is not None:
            return self._limit_s
        if len(self._ways) < ENOUGH:
            return 0.0
        return min(WAYS * median(self._ways), LONGEST_S)

    def took_s(self, command: Command) -> float | None:
        """In whatever environment it ran last. None: it is not known, or long."""
        return self._took_s.get(self._newest.get(_key(command), 0))

    def is_short(self, mark: Mark) -> bool:
        """By what it took before, in the same environment: one makefile may ask the same in each of its directories."""
        took_s = self._took_s.get(mark[1])
        return took_s is not None and took_s < self.limit_s

    def ran_there(self, mark: Mark, took_s: float, way_s: float) -> None:
        """A worker has done it, as this machine would have."""
        self._ways.append(way_s)
        self._ran(mark, took_s)

    def ran_here(self, mark: Mark, took_s: float) -> None:
        """It was done here, since it is short."""
        self._ran(mark, took_s)

    def forget(self, mark: Mark) -> None:
        """A worker has done it, and perhaps otherwise than this machine would have."""
        self._took_s.pop(mark[1], None)

    def save(self) -> None:
        """Keep it for the next master of this tree. Without that, its first build goes to the workers."""
        if self._store is None or not (self._took_s or self._store.exists()):
            return
        temporary = self._store.with_name(f"{self._store.name}.{os.getpid()}")
        try:
            temporary.write_bytes(msgspec.msgpack.encode((self._took_s, self._newest)))
            temporary.replace(self._store)
            _remove_old(self._store)
        except OSError as error:
            log.warning("short-commands-not-saved path=%s reason=%s", self._store, error.strerror)

    def _ran(self, mark: Mark, took_s: float) -> None:
        key, whole = mark
        if took_s > max(LONGEST_S, self._limit_s or 0.0):
            self._took_s.pop(whole, None)
            return
        for known, name in ((self._took_s, whole), (self._newest, key)):
            if len(known) >= KNOWN_LIMIT and name not in known:
                del known[next(iter(known))]
        # Half of the new, so that one that was disturbed once is not sent away for long.
        self._took_s[whole] = (self._took_s.get(whole, took_s) + took_s) / 2
        self._newest[key] = whole


def _load(store: Path) -> Known:
    try:
        known: Known = msgspec.msgpack.decode(store.read_bytes(), type=Known)
        return known
    except FileNotFoundError:
        return {}, {}
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("short-commands-unreadable path=%s reason=%s", store, error)
        return {}, {}


def _remove_old(store: Path) -> None:
    """Those of trees that nobody has built for long."""
    prefix = store.name.partition("-")[0]
    for other in store.parent.glob(f"{prefix}-*"):
        if time.time() - other.stat().st_mtime > KEEP_S:
            other.unlink(missing_ok=True)


def mark_of(command: Command) -> Mark:
    """By what it is recognised. `cp x "$DESTDIR"` is another command with another DESTDIR."""
    words = _joined(command.cwd, command.text, command.exe, *command.argv)
    return _key(command), _digest(environment_of(command).digest + words)


def _key(command: Command) -> int:
    return _digest(_joined(command.cwd, command.text))


def _joined(*words: str) -> bytes:
    return "\0".join(words).encode("utf-8", "surrogateescape")


def _digest(content: bytes) -> int:
    """64 bits: two of 50,000 commands have the same one once in ten billion times."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big")
