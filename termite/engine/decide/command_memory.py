"""Remember from one build to the next how commands have behaved.

A command is known again only if its words, its directory and its environment are the same. The
memory knows two kinds of commands: short ones (short_commands.py), and those whose remote results
were refused (refused_commands.py).
"""

import logging
import time
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import msgspec

from termite.engine.decide.environment import environment_of
from termite.engine.errors import Reason
from termite.engine.model import Command
from termite.engine.private_directories import private_directory

MAX_COMMANDS = 50_000  # of each kind; about 280 bytes each
SAVING = "saving"  # beside the store: private directories in which stores are written
MAX_UNUSED_S = 60 * 24 * 3600.0  # then the file of a tree is removed, if no master of that tree has ended since

# The first digest is of the directory and the text, the second of the command and its environment.
CommandKey = tuple[int, int]
V = TypeVar("V")

log = logging.getLogger(__name__)


class RefusedCommand(msgspec.Struct, array_like=True):
    """A command whose remote result was refused, for `reason`.

    `place` is an absolute path that is to blame, or b"". `since_s` is the time since the epoch at
    which a worker ran the command last. `runs` counts how often it was about to run.
    """

    place: bytes
    since_s: float
    runs: int = 0
    reason: str = Reason.WRITES_OUTSIDE.value


class _Saved(msgspec.Struct, array_like=True):
    """The content of a store. All keys are digests."""

    took_s: dict[int, float] = {}
    newest: dict[int, int] = {}
    refused: dict[int, RefusedCommand] = {}


class CommandMemory:
    """The memory of commands, by the second digests of their keys.

    `took_s` has run times in seconds, and `refused` the commands whose results were refused.
    `newest` has the newest second digest by the first one.
    """

    def __init__(self, store: Path | None = None) -> None:
        """Load what an earlier master of this tree has saved in `store`.

        If `store` is None, nothing is loaded or saved. An unreadable file is logged and ignored.
        """
        self._store = store
        saved = _load(store) if store else _Saved()
        self.took_s = saved.took_s
        self.newest = saved.newest
        self.refused = saved.refused

    def save(self) -> None:
        """Write everything to the store for the next master of this tree.

        A failure is logged only: the next build then runs every command on a worker once.
        """
        if self._store is None or not (self.took_s or self.refused or self._store.exists()):
            return
        try:
            with private_directory(self._store.parent / SAVING) as directory:
                temporary = directory / self._store.name
                temporary.write_bytes(msgspec.msgpack.encode(_Saved(self.took_s, self.newest, self.refused)))
                temporary.replace(self._store)
            _remove_old(self._store)
        except OSError as error:
            log.warning("short-commands-not-saved path=%s reason=%s", self._store, error.strerror)


def remember(known: dict[int, V], name: int, what: V) -> None:
    """Put an entry into a part of the memory. The oldest one makes room if there are too many."""
    if len(known) >= MAX_COMMANDS and name not in known:
        del known[next(iter(known))]
    known[name] = what


def key_of(command: Command) -> CommandKey:
    """Return the key under which a command is remembered.

    The environment is part of it: `cp x "$DESTDIR"` is another command if DESTDIR differs.
    """
    words = _join_words(command.cwd, command.text, command.exe, *command.argv)
    return text_digest(command), _digest(environment_of(command).digest + words)


def text_digest(command: Command) -> int:
    """Return the first digest of a command's key, which is the same in every environment."""
    return _digest(_join_words(command.cwd, command.text))


def _load(store: Path) -> _Saved:
    try:
        return msgspec.msgpack.decode(store.read_bytes(), type=_Saved)
    except FileNotFoundError:
        return _Saved()
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("short-commands-unreadable path=%s reason=%s", store, error)
        return _Saved()


def _remove_old(store: Path) -> None:
    """Remove the files of trees that nobody has built for MAX_UNUSED_S."""
    prefix = store.name.partition("-")[0]
    for other in store.parent.glob(f"{prefix}-*"):
        if time.time() - other.stat().st_mtime > MAX_UNUSED_S:
            other.unlink(missing_ok=True)


def _join_words(*words: str) -> bytes:
    return "\0".join(words).encode("utf-8", "surrogateescape")


def _digest(content: bytes) -> int:
    """Return 64 bits: among 50,000 commands, two have the same digest once in ten billion cases."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big")
