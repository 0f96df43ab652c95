"""Make the socket file at which a tree's launchers reach its master.

The file appears only when the socket accepts connections. It replaces a file that a killed master
left behind.
"""

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from termite.engine.errors import UserError

BACKLOG = 4096
LOCK_TIMEOUT_S = 5.0  # another master that is just starting holds the directory's lock for milliseconds


@contextlib.contextmanager
def bound_socket(path: Path) -> Iterator[socket.socket]:
    """Listen at `path` with mode 0700, yield the socket, and remove the file afterwards.

    Raise UserError if another master listens there, or if the file cannot be made. Block the
    thread for up to LOCK_TIMEOUT_S while another master starts.
    """
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"cannot listen at {path}: {error.strerror}", hint="see -socket") from error
    try:
        with _locked(directory):
            # The address uses the descriptor: the path of a deep tree may be too long for it.
            address = f"/proc/self/fd/{directory}/{path.name}"
            if _is_answered(address):
                raise UserError(f"a master already runs in this tree: {path}", hint="termite-ctl status")
            listening = _listening_socket(address)
            ours = os.stat(path.name, dir_fd=directory).st_ino
        try:
            yield listening
        finally:
            listening.close()
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path.name, dir_fd=directory).st_ino == ours:
                    os.unlink(path.name, dir_fd=directory)
    finally:
        os.close(directory)


def remove_dead_socket(directory: int, name: str) -> bool:
    """Remove the socket `name` in an open directory, and its temporary ones, if nobody listens.

    Return False if a master listens there. Raise OSError or UserError if that cannot be found out.
    """
    with _locked(directory):
        if _is_answered(f"/proc/self/fd/{directory}/{name}"):
            return False
        for entry in os.listdir(directory):
            if entry == name or (entry.startswith(f"{name}.") and entry.removeprefix(f"{name}.").isdigit()):
                status = os.stat(entry, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISSOCK(status.st_mode) and status.st_uid == os.geteuid():
                    os.unlink(entry, dir_fd=directory)
    return True


def _listening_socket(address: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    temporary = f"{address}.{os.getpid()}"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        _bind_privately(listening, temporary)
        listening.listen(BACKLOG)
        listening.setblocking(False)
        os.rename(temporary, address)
    except OSError as error:
        listening.close()
        with contextlib.suppress(OSError):  # it may not have been made
            os.unlink(temporary)
        raise UserError(f"cannot listen at {os.path.realpath(address)}: {error.strerror}") from error
    return listening


def _bind_privately(listening: socket.socket, address: str) -> None:
    """Bind a socket whose file has mode 0700 from the beginning. Raise OSError.

    Whoever may write to the directory could put a symlink in its place before a chmod.
    """
    others = os.umask(0o077)
    try:
        listening.bind(address)
    finally:
        os.umask(others)


def _is_answered(address: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        error = probe.connect_ex(address)
    # EAGAIN means that the backlog is full, so a master listens.
    return error in (0, errno.EAGAIN)


@contextlib.contextmanager
def _locked(directory: int) -> Iterator[None]:
    """Lock the directory, so that two masters that start at once do not both take the socket."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise UserError(
                    "the directory is locked by another program", hint="if a master is starting, try again"
                ) from None
            time.sleep(0.02)
        except OSError:
            break  # a file system without locks, on which the race remains; it is narrow
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # closing the directory frees the lock as well
            fcntl.flock(directory, fcntl.LOCK_UN)
