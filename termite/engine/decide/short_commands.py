"""Decide which commands are too short to be worth a worker.

A command's name decides nothing: it runs on a worker once, and the time that it took there counts.
The dispatch overhead is measured too: 3 ms for a worker on the master's machine, 25 ms for one
behind a home link.
"""

import logging
import time
from collections import deque
from hashlib import blake2b
from pathlib import Path
from statistics import median

import msgspec

from termite.engine.decide.environment import environment_of
from termite.engine.model import Command
from termite.engine.private_directories import private_directory

# A command is short if its run time is below this many times the dispatch overhead: dispatching it
# would cost 2 % or more. On one machine the real cost is three times that, because the job also
# pays for its sandbox and for cold processor caches.
SHORT_RATIO = 50
MAX_SHORT_S = 1.0  # a longer command is never short, however large the overhead, unless the user sets a limit
MAX_COMMANDS = 50_000  # about 280 bytes each; long commands are not remembered
MAX_SAMPLES = 31  # overheads, of which the median counts: a job that had to fetch a compiler is an outlier
MIN_SAMPLES = 5  # overheads, before any command is called short
SAVING = "saving"  # beside the store: private directories in which stores are written
MAX_UNUSED_S = 60 * 24 * 3600.0  # then the file of a tree is removed, if no master of that tree has ended since

# The first digest is of the directory and the text, the second of the command and its environment.
CommandKey = tuple[int, int]
# The first part has run times in seconds by the second digest of their keys. The second part has
# the newest second digest by the first one.
_RunTimes = tuple[dict[int, float], dict[int, int]]

log = logging.getLogger(__name__)


class ShortCommands:
    """The run times of commands, and which commands are short because of them."""

    def __init__(self, limit_s: float | None = None, store: Path | None = None) -> None:
        """Load the run times that an earlier master of this tree has saved in `store`.

        `limit_s` is the run time below which a command is short. If it is None, the limit follows
        from the measured overhead; if it is 0, no command is short. If `store` is None, nothing is
        loaded or saved. An unreadable file is logged and ignored.
        """
        self._limit_s = limit_s
        self._store = store
        self._took_s, self._newest = _load(store) if store else ({}, {})
        self._overheads_s: deque[float] = deque(maxlen=MAX_SAMPLES)

    @property
    def is_on(self) -> bool:
        """False if no command is ever short, so that nobody needs to compute keys."""
        return self._limit_s != 0

    @property
    def limit_s(self) -> float:
        """The run time below which a command is short; 0.0 until enough is measured."""
        if self._limit_s is not None:
            return self._limit_s
        if len(self._overheads_s) < MIN_SAMPLES:
            return 0.0
        return min(SHORT_RATIO * median(self._overheads_s), MAX_SHORT_S)

    def took_s(self, command: Command) -> float | None:
        """Return the command's run time, in seconds, in the environment in which it ran last.

        Return None if the command is unknown or longer than any short command can be.
        """
        return self._took_s.get(self._newest.get(_text_digest(command), 0))

    def is_short(self, key: CommandKey) -> bool:
        """Return True if the command was short when it last ran in the same environment."""
        took_s = self._took_s.get(key[1])
        return took_s is not None and took_s < self.limit_s

    def record_remote(self, key: CommandKey, took_s: float, overhead_s: float) -> None:
        """Record that a worker ran the command, and what dispatching it cost in addition.

        Only call this if the command would have had the same effects on the master's machine.
        """
        self._overheads_s.append(overhead_s)
        self._record(key, took_s)

    def record_local(self, key: CommandKey, took_s: float) -> None:
        """Record that the command ran on the master's machine because it was short."""
        self._record(key, took_s)

    def forget(self, key: CommandKey) -> None:
        """Forget a command whose effects might have been different on the master's machine."""
        self._took_s.pop(key[1], None)

    def save(self) -> None:
        """Write the run times to the store for the next master of this tree.

        A failure is logged only: the next build then runs every command on a worker once.
        """
        if self._store is None or not (self._took_s or self._store.exists()):
            return
        try:
            with private_directory(self._store.parent / SAVING) as directory:
                temporary = directory / self._store.name
                temporary.write_bytes(msgspec.msgpack.encode((self._took_s, self._newest)))
                temporary.replace(self._store)
            _remove_old(self._store)
        except OSError as error:
            log.warning("short-commands-not-saved path=%s reason=%s", self._store, error.strerror)

    def _record(self, key: CommandKey, took_s: float) -> None:
        text_digest, whole = key
        if took_s > max(MAX_SHORT_S, self._limit_s or 0.0):
            self._took_s.pop(whole, None)
            return
        for known, name in ((self._took_s, whole), (self._newest, text_digest)):
            if len(known) >= MAX_COMMANDS and name not in known:
                del known[next(iter(known))]
        # The mean of the old and the new time, so that one disturbed run does not count for long.
        self._took_s[whole] = (self._took_s.get(whole, took_s) + took_s) / 2
        self._newest[text_digest] = whole


def _load(store: Path) -> _RunTimes:
    try:
        loaded: _RunTimes = msgspec.msgpack.decode(store.read_bytes(), type=_RunTimes)
        return loaded
    except FileNotFoundError:
        return {}, {}
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("short-commands-unreadable path=%s reason=%s", store, error)
        return {}, {}


def _remove_old(store: Path) -> None:
    """Remove the files of trees that nobody has built for MAX_UNUSED_S."""
    prefix = store.name.partition("-")[0]
    for other in store.parent.glob(f"{prefix}-*"):
        if time.time() - other.stat().st_mtime > MAX_UNUSED_S:
            other.unlink(missing_ok=True)


def key_of(command: Command) -> CommandKey:
    """Return the key under which the command's run time is kept.

    The environment is part of it: `cp x "$DESTDIR"` is another command if DESTDIR differs.
    """
    words = _join_words(command.cwd, command.text, command.exe, *command.argv)
    return _text_digest(command), _digest(environment_of(command).digest + words)


def _text_digest(command: Command) -> int:
    return _digest(_join_words(command.cwd, command.text))


def _join_words(*words: str) -> bytes:
    return "\0".join(words).encode("utf-8", "surrogateescape")


def _digest(content: bytes) -> int:
    """Return 64 bits: among 50,000 commands, two have the same digest once in ten billion cases."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big")
