"""Write down in which places a daemon leaves something if it is killed, so that others clean up.

Each daemon of a user has one file, in a directory of the user's state. The daemon holds a lock on
the file, and removes it at its end. A file without a lock is one of a daemon that was killed. Any
later command of the user then starts the sweep, which goes to the places in the file, and removes
the file when nothing is left there.

A file whose places could not be cleaned (a disk that is not mounted) gets a name that begins with
`later-`, and waits for a day. Files of other machines, which share the home directory, are left
alone.

Every build waits for the imports of this module.
"""

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from termite.cli.places import STATE, candidates, own_directory
from termite.engine.errors import UserError
from termite.engine.host.ownership import find_stranger

LATER = "later-"
MOVED = "moved"  # True if the daemon sees other paths than others, so that it cannot clean up after them
LATER_S = 24 * 3600.0  # from one attempt to the next
READ_BYTES = 64 * 1024  # more than a file has: it names a few paths
MAX_AGE_S = 30 * 24 * 3600.0  # then the places are given up
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class Footprint:
    """The file of a daemon that has ended, which we have locked. `places` are what it names."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.places = _read_places(fd)
        self._fd = fd  # the caller closes it

    def remove(self) -> None:
        """Remove the file, because nothing is left."""
        with suppress(FileNotFoundError):
            self.path.unlink()

    def put_off(self) -> None:
        """Keep the file for another attempt tomorrow, or give up after a month."""
        first_s = self.places.setdefault("put_off_s", int(time.time()))
        if not isinstance(first_s, int) or time.time() - first_s > MAX_AGE_S:
            self.remove()
            return
        path = self.path.with_name(LATER + self.path.name.removeprefix(LATER))
        text = json.dumps(self.places).encode()
        with suppress(OSError):  # a full disk: the next sweep tries again
            # The file is never emptied first: on a full disk it would then say nothing any more.
            if os.pwrite(self._fd, text, 0) == len(text):
                os.ftruncate(self._fd, len(text))
            self.path.rename(path)
            self.path = path


@contextmanager
def footprint(places: Mapping[str, object]) -> Iterator[None]:
    """Write `places` down for the length of the block. If that fails, go on without."""
    if not places:
        yield
        return
    try:
        fd, path = _locked_file(own_directory(STATE) / "running")
        os.write(fd, json.dumps({**places, "file": os.fstat(fd).st_ino}).encode())
    except (OSError, UserError):
        yield
        return
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
        os.close(fd)


def master_places(socket: Path, hashes: Path, own: Path | None = None) -> dict[str, object]:
    """Return the places of a master.

    `own` is the tree's own path if this process sees it at another one. Others see it at its own.
    The inode tells the tree from a later directory with its name. The device tells a tree that was
    removed from one whose disk is not mounted. It identifies nothing: some file systems have
    another device after each mount.
    """
    try:
        status = socket.parent.stat()
    except OSError:
        return {}
    named = own / socket.name if own else socket
    tree = {"socket": str(named), "device": status.st_dev, "inode": status.st_ino}
    return {**tree, "hashes": str(hashes), "pid": os.getpid(), MOVED: own is not None}


def is_elsewhere(places: Mapping[str, object]) -> bool:
    """Return whether the tree of a master's places is no longer at its path.

    Another master may have that path now. Devices are not compared (see `master_places`).
    """
    socket = places.get("socket")
    if not isinstance(socket, str):
        return False
    try:
        return Path(socket).parent.stat().st_ino != places.get("inode")
    except FileNotFoundError:
        return True
    except OSError:
        return False


def worker_places(cache: Path, tmpdir: Path) -> dict[str, object]:
    """Return the places of a worker."""
    return {"cache": os.path.abspath(cache), "tmpdir": os.path.abspath(tmpdir)}


def dead_footprints() -> Iterator[Footprint]:
    """Yield the due files of daemons that have ended, each locked until the next one."""
    for directory, name in _due_names():
        with suppress(OSError):  # another sweep has removed it, or holds its lock
            fd = os.open(directory / name, _FLAGS)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_nlink and _is_original(fd):
                    yield Footprint(directory / name, fd)
            finally:
                os.close(fd)


def living_places() -> list[dict[str, object]]:
    """Return the places of each daemon of this user that runs on this machine."""
    found = []
    for directory, name in _due_names():
        with suppress(OSError):  # its daemon has removed it
            fd = os.open(directory / name, _FLAGS)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # its daemon holds the lock
                found.append(_read_places(fd))
            finally:
                os.close(fd)
    return found


def is_sweep_due() -> bool:
    """Return whether a daemon of this user was killed, and nobody has cleaned up after it yet.

    This takes some 30 microseconds.
    """
    for directory, name in _due_names():
        with suppress(OSError):  # its daemon has removed it
            fd = os.open(directory / name, _FLAGS)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                if _is_original(fd):
                    return True
            finally:
                os.close(fd)
    return False


def start_sweep() -> int | None:
    """Start to clean up after daemons that were killed, if there are any.

    The work is done by a process of its own, because a lost disk may block it for ever. Return its
    pid, or None if there is nothing to do.
    """
    if not is_sweep_due():
        return None
    try:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        streams = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
        command = [sys.executable, "-P", "-m", "termite.cli.leftovers.sweep"]  # no module of the current directory
        return os.posix_spawn(sys.executable, command, os.environ, file_actions=streams, setsid=True)
    except OSError:
        return None


def _due_names() -> Iterator[tuple[Path, str]]:
    ours = f"{os.uname().nodename}-"
    for place in candidates(STATE):
        directory = place / "running"
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        # Root may have somebody's $HOME, and must not go where that user sends it.
        if names and (directory.stat().st_uid != os.geteuid() or find_stranger(directory)):
            continue
        for name in names:
            if not name.removeprefix(LATER).startswith(ours):
                continue
            with suppress(OSError):  # another sweep has removed it
                if not name.startswith(LATER) or time.time() - os.stat(directory / name).st_mtime > LATER_S:
                    yield directory, name


def _is_original(fd: int) -> bool:
    """Return whether this is the file that the daemon has written, and no copy.

    A job on a worker that sees the user's state directory sees copies, which nobody locks.
    """
    return _read_places(fd).get("file") in (None, os.fstat(fd).st_ino)


def _read_places(fd: int) -> dict[str, object]:
    """Return what a file says: nothing if its daemon was killed before it had written the file."""
    try:
        return dict(json.loads(os.pread(fd, READ_BYTES, 0)))
    except (ValueError, TypeError, RecursionError):
        return {}


def _locked_file(directory: Path) -> tuple[int, Path]:
    """Make and lock a new file. It is made again if a sweep takes it before it is locked."""
    directory.mkdir(mode=0o700, exist_ok=True)
    while True:
        path = directory / f"{os.uname().nodename}-{os.urandom(8).hex()}"
        fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd, path
        os.close(fd)
