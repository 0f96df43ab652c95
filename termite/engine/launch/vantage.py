"""From where a process sees files, users and the machine: two that differ in that get other answers to one question.

The launcher says the same of itself in the same texts, which are compared and never read. Every front end imports this,
so it has no dataclasses: these take milliseconds to import.
"""

import os
import socket
import struct

from termite.engine.errors import Reason


class Vantage:
    """What a process says of itself. An empty text is one that could not be told, and equals nothing.

    `root`: mount and inode of its root directory. A mount belongs to one mount namespace, so this tells these, too.
    `users`: its user namespace, and its ids in that. `here`: its working directory. `host`: what uname(2) says.
    """

    __slots__ = ("here", "host", "root", "users")

    def __init__(self, root: str = "", users: str = "", here: str = "", host: str = "") -> None:
        self.root, self.users, self.here, self.host = root, users, here, host


def own_vantage(directory: str = ".") -> Vantage:
    """Return that of this process, if it worked in `directory`."""
    host = os.uname()
    return Vantage(_root(), _users(), directory_identity(directory), f"{host.nodename} {host.release} {host.machine}")


def own_ids() -> tuple[int, int]:
    """Return the effective user and group of this process as the kernel knows them: below fakeroot geteuid(2) lies."""
    one, other = socket.socketpair()
    with one, other:
        _, uid, gid = struct.unpack("3i", one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid, gid


def directory_identity(path: str) -> str:
    """Return device and inode of a directory as a text; an empty one if that cannot be told."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}:{status.st_ino}"


def difference(ours: Vantage, other: Vantage, cwd: str) -> Reason | None:
    """Return in what a process that works in `cwd` differs from this one; None: in nothing."""
    if not other.root or other.root != ours.root:
        return Reason.OTHER_ROOT
    if not other.users or other.users != ours.users:
        return Reason.OTHER_USER
    if not other.here or other.here != directory_identity(cwd):
        return Reason.OTHER_DIRECTORY
    if not other.host or other.host != ours.host:
        return Reason.OTHER_HOST
    return None


def _root() -> str:
    # Python has no statx: the descriptor's own file knows its mount.
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}") as lines:
            mount = next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")
    except OSError:
        return ""
    finally:
        os.close(fd)
    return f"{mount}:{directory_identity('/')}" if mount else ""


def _users() -> str:
    try:
        namespace = os.stat("/proc/self/ns/user").st_ino
    except OSError:
        return ""
    uid, gid = own_ids()
    return f"{namespace}:{uid}:{gid}"
