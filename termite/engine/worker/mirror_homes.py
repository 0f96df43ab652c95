"""Give each mirror process a home: a cache, a scratch directory and, on a root worker, a user.

The users of a root worker come from a small pool, so that the jobs of two masters cannot touch each
other. The cache of a user stays. The scratch directory is removed when the mirror ends, or when the
next worker starts on this machine. The files that a killed mirror leaves in its cache are removed
then too.
"""

import fcntl
import os
import pwd
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from termite.engine.beneath import open_beneath
from termite.engine.errors import Reason, Retryable, UserError
from termite.engine.host.ownership import require_own
from termite.engine.private_directories import (
    DIRECTORY,
    locked_directory,
    remove_leftovers,
    remove_leftovers_in,
    remove_tree,
)
from termite.engine.worker import worker_calls

DEFAULT_USER_BASE = 60800  # systemd's table of ids has 60706-61183 as unused; below and above are dynamic users
MAX_MIRRORS = 64  # simultaneous mirrors of one worker, and users of a root worker
SCRATCH_PREFIX = "termite-worker-"
USER_PREFIX = "user-"
PRIVATE_PLACES = ("warm", "cas/tmp")  # of a cache: a mirror that runs has a locked directory in each


@dataclass(frozen=True, slots=True)
class MirrorHome:
    """The home of one mirror. `uid` is None if the mirror runs as the worker's own user.

    `number` is that of the user, counted from 0.
    """

    uid: int | None
    cache: Path
    scratch: Path
    number: int = 0


class MirrorHouse:
    """The homes of a worker's mirrors."""

    def __init__(self, cache: Path, tmpdir: Path, users: range | None) -> None:
        """Make the directories, and remove those that a killed worker has left in `tmpdir`.

        `users` are the user ids of a root worker's mirrors, or None for an ordinary user. Raise
        UserError if a directory cannot be made.
        """
        self._cache = cache
        self._users = users
        self._taken: set[int] = set()
        make_directory(cache, 0o755 if users else 0o700)
        self._cache_fd = os.open(cache, DIRECTORY)
        require_own(tmpdir, "see -tmpdir")
        remove_leftovers(tmpdir, SCRATCH_PREFIX)
        _clear_caches(self._cache_fd, cache)
        self._scratch, self._lock = _scratch_directory(tmpdir, 0o711 if users else 0o700)

    @asynccontextmanager
    async def claim(self) -> AsyncIterator[MirrorHome]:
        """Hold a free home, whose scratch directory is empty and is removed at the end.

        Raise Retryable if there are MAX_MIRRORS mirrors already, or if other workers hold the
        users.
        """
        with ExitStack() as claims:
            number = next((n for n in range(MAX_MIRRORS) if self._claim_user(n, claims)), None)
            if number is None:
                raise Retryable(Reason.WORKER_BUSY, f"{MAX_MIRRORS} mirrors run there already")
            home = self._make_home(number)
            try:
                yield home
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._clear_home, home)

    def _clear_home(self, home: MirrorHome) -> None:
        """Remove everything of a mirror that has ended, and perhaps was killed."""
        remove_tree(home.scratch)
        remove_mirror_leftovers(self._cache)

    def close(self) -> None:
        """Remove the scratch directories. This may block."""
        remove_tree(self._scratch)
        os.close(self._lock)
        os.close(self._cache_fd)

    def _claim_user(self, number: int, claims: ExitStack) -> bool:
        """Claim the user with this number until `claims` is closed; return False if it is taken.

        A lock on the user's cache keeps other workers on this machine from using the user too.
        """
        if number in self._taken:
            return False
        if self._users is not None:
            uid = self._users[number]
            with suppress(FileExistsError):
                worker_calls.mkdir(_user_cache(uid), 0o700, dir_fd=self._cache_fd)
            lock = worker_calls.open(_user_cache(uid), DIRECTORY | os.O_NOFOLLOW, dir_fd=self._cache_fd)
            claims.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            worker_calls.fchown(lock, uid, uid)
        self._taken.add(number)
        claims.callback(self._taken.discard, number)
        return True

    def _make_home(self, number: int) -> MirrorHome:
        """Make a scratch directory.

        Root acts on descriptors, because others who may write to a directory above could exchange
        a name between two calls.
        """
        name = str(number)
        worker_calls.mkdir(name, 0o700, dir_fd=self._lock)
        if self._users is None:
            return MirrorHome(None, self._cache, self._scratch / name)
        uid = self._users[number]
        made = worker_calls.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=self._lock)
        try:
            worker_calls.fchown(made, uid, uid)
        finally:
            os.close(made)
        return MirrorHome(uid, self._cache / _user_cache(uid), self._scratch / name, number)


def _user_cache(uid: int) -> str:
    return f"{USER_PREFIX}{uid}"


def check_users(users: range) -> None:
    """Raise UserError if one of these user ids belongs to a user of this machine."""
    for uid in users:
        with suppress(KeyError):
            name = pwd.getpwuid(uid).pw_name
            raise UserError(
                f"user id {uid} belongs to {name}, but jobs would run as ids {users[0]} to {users[-1]}",
                hint=f"use -user-base to choose {len(users)} ids that nobody has",
            )


def make_directory(path: Path, mode: int) -> None:
    """Make `path` with `mode` if it is missing; missing parents get 0755.

    Raise UserError if the directory cannot be made, if this process cannot write to it, or if
    another user could put his own in its place.
    """
    hint = "see -cachedir, -tmpdir"
    require_own(path, hint)
    try:
        path.parent.mkdir(0o755, parents=True, exist_ok=True)
        path.mkdir(mode, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot make this directory: {error.strerror}", hint=hint) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"{path}: cannot write to this directory", hint=hint)
    require_own(path, hint)


def _scratch_directory(tmpdir: Path, mode: int) -> tuple[Path, int]:
    """Make the directory for the scratch files of all mirrors; return it with its lock."""
    try:
        return locked_directory(tmpdir, SCRATCH_PREFIX, mode)
    except OSError as error:
        raise UserError(f"{tmpdir}: cannot make a directory here: {error.strerror}", hint="see -tmpdir") from error


def remove_mirror_leftovers(cache: Path) -> None:
    """Remove what killed mirrors have left in a worker's cache, of all users that jobs run as.

    Directories of mirrors that run are locked, and stay.
    """
    with suppress(OSError):  # there is no cache yet
        top = os.open(cache, DIRECTORY)
        try:
            _clear_caches(top, cache)
        finally:
            os.close(top)


def _clear_caches(top: int, shown: Path) -> None:
    for name in (".", *(name for name in os.listdir(top) if name.startswith(USER_PREFIX))):
        with suppress(OSError):  # it was removed, or is no directory
            cache = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
            try:
                _clear_cache(cache, shown / name)
            finally:
                os.close(cache)


def _clear_cache(cache: int, shown: Path) -> None:
    """Remove the leftovers in the cache of one user, who may have put symlinks anywhere in it."""
    owner = os.fstat(cache).st_uid
    for place in PRIVATE_PLACES:
        with suppress(OSError):  # this user has none
            directory = open_beneath(cache, os.fsencode(place), os.O_RDONLY | DIRECTORY)
            try:
                remove_leftovers_in(directory, shown / place, "", owner)
            finally:
                os.close(directory)
