"""Where a mirror process lives: its cache, its scratch directory and, where the worker is root, its user.

A root worker gives every mirror a user of its own from a small pool, so that jobs of two masters cannot touch each
other. The cache of a user stays; the scratch directory goes with the mirror, or with the next worker that starts here.
"""

import fcntl
import logging
import os
import pwd
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from termite.engine.errors import Retryable, UserError

DEFAULT_USER_BASE = 60800  # systemd's table of ids has 60706-61183 as unused; below and above are dynamic users
USERS = 64  # so many mirrors at once
_PREFIX = "termite-worker-"
_FRESH_S = 2.0  # a directory this young may not have its lock yet

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Quarters:
    """`uid` is None where the mirror runs as the worker's own user."""

    uid: int | None
    cache: Path
    scratch: Path


class House:
    """All quarters of one worker. `users`: the pool, None for an ordinary user."""

    def __init__(self, cache: Path, tmpdir: Path, users: range | None) -> None:
        self._cache = cache
        self._users = users
        self._taken: set[int] = set()
        make_directory(cache, 0o755 if users else 0o700)
        remove_leftovers(tmpdir)
        self._scratch, self._lock = _locked_directory(tmpdir, 0o711 if users else 0o700)

    @asynccontextmanager
    async def quarters(self) -> AsyncIterator[Quarters]:
        """Free ones, with an empty scratch directory. Retryable if every user of the pool has a mirror."""
        with ExitStack() as claims:
            number = next((n for n in range(USERS) if self._claim(n, claims)), None)
            if number is None:
                raise Retryable(f"{USERS} mirrors run here already")
            quarters = self._furnish(number)
            try:
                yield quarters
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(remove_tree, quarters.scratch)

    def close(self) -> None:
        """Remove the scratch directory."""
        remove_tree(self._scratch)
        os.close(self._lock)

    def _claim(self, number: int, claims: ExitStack) -> bool:
        """A lock on a user's cache keeps other workers on this machine from using that user too."""
        if number in self._taken:
            return False
        if self._users is not None:
            cache = self._user_cache(number)
            cache.mkdir(0o700, exist_ok=True)
            lock = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            claims.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        self._taken.add(number)
        claims.callback(self._taken.discard, number)
        return True

    def _furnish(self, number: int) -> Quarters:
        scratch = self._scratch / str(number)
        scratch.mkdir(0o700)
        if self._users is None:
            return Quarters(None, self._cache, scratch)
        uid, cache = self._users[number], self._user_cache(number)
        os.chown(scratch, uid, uid)
        os.chown(cache, uid, uid)
        return Quarters(uid, cache, scratch)

    def _user_cache(self, number: int) -> Path:
        assert self._users is not None
        return self._cache / f"user-{self._users[number]}"


def check_users(users: range) -> None:
    """Nobody else may have these ids."""
    for uid in users:
        with suppress(KeyError):
            name = pwd.getpwuid(uid).pw_name
            raise UserError(
                f"user id {uid} is {name}'s, but jobs would run as {users[0]} to {users[-1]}",
                hint=f"choose {len(users)} ids that nobody has with -user-base",
            )


def make_directory(path: Path, mode: int) -> None:
    """Make `path` where it is missing; its parents get 0755."""
    try:
        path.parent.mkdir(0o755, parents=True, exist_ok=True)
        path.mkdir(mode, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{path}: cannot make this directory: {error.strerror}", hint="see -cachedir, -tmpdir"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"{path}: cannot write to this directory", hint="see -cachedir, -tmpdir")


def remove_leftovers(tmpdir: Path) -> None:
    """Scratch directories of workers that were killed: nobody holds their lock."""
    for path in tmpdir.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            status = path.lstat()
            if status.st_uid != os.geteuid() or time.time() - status.st_mtime < _FRESH_S:
                continue
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                log.info("leftover-removed path=%s", path)
                remove_tree(path)
            finally:
                os.close(lock)


def remove_tree(path: Path) -> None:
    """With everything in it, also what a job made unreadable."""
    if not path.exists():
        return
    with suppress(OSError):
        shutil.rmtree(path)
        return
    with suppress(OSError):
        path.chmod(0o700)
    for directory, _, _ in os.walk(path):  # top down: a directory is opened up before it is listed
        with suppress(OSError):  # another user's
            for entry in os.scandir(directory):
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        log.warning("not-removed path=%s", path)


def _locked_directory(tmpdir: Path, mode: int) -> tuple[Path, int]:
    try:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=tmpdir))
    except OSError as error:
        raise UserError(f"{tmpdir}: cannot make a directory here: {error.strerror}", hint="see -tmpdir") from error
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    path.chmod(mode)
    return path, lock
