"""Give each mirror process a home: a cache, a scratch directory and, on a root worker, a user.

The users of a root worker come from a small pool, so that the jobs of two masters cannot touch each
other. The cache of a user stays. The scratch directory is removed when the mirror ends, or when the
next worker starts on this machine.
"""

import fcntl
import itertools
import logging
import os
import pwd
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from termite.engine.errors import Reason, Retryable, UserError
from termite.engine.host.ownership import require_own

DEFAULT_USER_BASE = 60800  # systemd's table of ids has 60706-61183 as unused; below and above are dynamic users
MAX_MIRRORS = 64  # simultaneous mirrors of one worker, and users of a root worker
_PREFIX = "termite-worker-"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MirrorHome:
    """The home of one mirror. `uid` is None if the mirror runs as the worker's own user."""

    uid: int | None
    cache: Path
    scratch: Path


class MirrorHomes:
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
        self._cache_fd = os.open(cache, _DIRECTORY)
        require_own(tmpdir, "see -tmpdir")
        remove_leftovers(tmpdir)
        self._scratch, self._lock = _locked_directory(tmpdir, 0o711 if users else 0o700)

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
                    await trio.to_thread.run_sync(remove_scratch_tree, home.scratch)

    def close(self) -> None:
        """Remove the scratch directories. This may block."""
        remove_scratch_tree(self._scratch)
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
                os.mkdir(_user_cache(uid), 0o700, dir_fd=self._cache_fd)
            lock = os.open(_user_cache(uid), _DIRECTORY | os.O_NOFOLLOW, dir_fd=self._cache_fd)
            claims.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            os.fchown(lock, uid, uid)
        self._taken.add(number)
        claims.callback(self._taken.discard, number)
        return True

    def _make_home(self, number: int) -> MirrorHome:
        """Make a scratch directory.

        Root acts on descriptors, because others who may write to a directory above could exchange
        a name between two calls.
        """
        name = str(number)
        os.mkdir(name, 0o700, dir_fd=self._lock)
        if self._users is None:
            return MirrorHome(None, self._cache, self._scratch / name)
        uid = self._users[number]
        made = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=self._lock)
        try:
            os.fchown(made, uid, uid)
        finally:
            os.close(made)
        return MirrorHome(uid, self._cache / _user_cache(uid), self._scratch / name)


def _user_cache(uid: int) -> str:
    return f"user-{uid}"


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


def remove_leftovers(tmpdir: Path) -> None:
    """Remove the scratch directories of killed workers, which nobody locks any more.

    A worker that has just made its directory may not hold the lock yet. It makes another one then
    (see `_locked_directory`).
    """
    for path in tmpdir.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # gone meanwhile, or another user's
            lock = os.open(path, _DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid != os.geteuid():
                    continue
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                log.info("leftover-removed path=%s", path)
                _empty(lock, path)
                _remove_empty(path)
            finally:
                os.close(lock)


def remove_scratch_tree(path: Path) -> None:
    """Remove `path` with everything that a job may have left in it.

    Directories may be unreadable, or deeper than any path can be. Leftovers are logged. The
    function does not descend: each directory is moved to the top before it is emptied.
    `shutil.rmtree` calls itself for each level, so that a job's deep tree ended the worker. This
    may block for long.
    """
    try:
        top = _open_up(os.fspath(path))
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("leftover-kept path=%s reason=%s", path, error.strerror)
        return
    try:
        _empty(top, path)
    finally:
        os.close(top)
    _remove_empty(path)


def _remove_empty(path: Path) -> None:
    with suppress(OSError):  # the next line reports what stays
        path.rmdir()
    if path.exists():
        log.warning("leftover-kept path=%s", path)


def _empty(top: int, path: Path) -> None:
    """Remove everything in the directory `top`.

    An entry that cannot be removed stays somewhere in it.
    """
    free_names = map(f"removed-{secrets.token_hex(8)}-{{}}".format, itertools.count())
    waiting = _take_out(top, top, free_names)
    while waiting:
        name = waiting.pop()  # the last one, so that as few as possible wait
        try:
            directory = _open_up(name, top)
            try:
                waiting += _take_out(directory, top, free_names)
            finally:
                os.close(directory)
            os.rmdir(name, dir_fd=top)
        except OSError as error:
            log.debug("leftover-kept path=%s name=%s reason=%s", path, name, error.strerror)


def _take_out(directory: int, top: int, free_names: Iterator[str]) -> list[str]:
    """Remove the files in `directory`, and move its directories to `top`.

    Return the names that the directories have in `top`.
    """
    moved = []
    for entry in list(os.scandir(directory)):
        with suppress(OSError):  # what stays makes the removal of its directory fail, which is logged
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=directory)
            elif directory == top:
                moved.append(entry.name)
            else:
                moved.append(_move_up(entry.name, directory, top, free_names))
    return moved


def _move_up(name: str, directory: int, top: int, free_names: Iterator[str]) -> str:
    free = next(free_names)
    try:
        os.rename(name, free, src_dir_fd=directory, dst_dir_fd=top)
    except PermissionError:  # moving a directory writes its "..", and so needs its write bit
        os.close(_open_up(name, directory))
        os.rename(name, free, src_dir_fd=directory, dst_dir_fd=top)
    return free


def _open_up(name: str, within: int | None = None) -> int:
    """Open a directory, giving its owner all rights. Raise OSError if `name` is no directory."""
    flags = _DIRECTORY | os.O_NOFOLLOW
    here = os.open(name, os.O_PATH | flags, dir_fd=within)
    try:
        if os.fstat(here).st_mode & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{here}", 0o700)
        return os.open(".", flags, dir_fd=here)
    finally:
        os.close(here)


def _locked_directory(tmpdir: Path, mode: int) -> tuple[Path, int]:
    """Make a directory, and return it with the descriptor that locks it.

    Another worker may take the new directory for a leftover before it is locked, and remove it. A
    directory that is gone when the lock is ours is replaced by a new one.
    """
    while True:
        try:
            path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=tmpdir))
        except OSError as error:
            raise UserError(f"{tmpdir}: cannot make a directory here: {error.strerror}", hint="see -tmpdir") from error
        with suppress(FileNotFoundError):
            lock = os.open(path, _DIRECTORY | os.O_NOFOLLOW)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_nlink:
                os.fchmod(lock, mode)
                return path, lock
            os.close(lock)
