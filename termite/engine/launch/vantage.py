"""Compare the vantages of processes: how each of them sees files, users and the machine.

The launcher (native/launcher) describes itself with the same texts. They are compared and never
parsed. Every front end imports this module, so it has no dataclasses, whose import takes
milliseconds.
"""

import os
import socket

from termite.engine.errors import Reason
from termite.engine.socket_peers import peer_ids
from termite.engine.status.control_requests import Vantage


def own_vantage(directory: str = ".") -> Vantage:
    """Return the vantage of this process, as if its working directory were `directory`."""
    host = os.uname()
    return Vantage(_root(), _users(), directory_identity(directory), f"{host.nodename} {host.release} {host.machine}")


def own_ids() -> tuple[int, int]:
    """Return the effective user and group of this process as the kernel knows them.

    Below fakeroot, geteuid(2) returns other ones.
    """
    one, other = socket.socketpair()
    with one, other:
        _, uid, gid = peer_ids(one.getsockopt)
    return uid, gid


def directory_identity(path: str) -> str:
    """Return the device and the inode of a directory as a text, or "" if it cannot be examined."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}:{status.st_ino}"


def difference(ours: Vantage, other: Vantage, cwd: str) -> Reason | None:
    """Return the first difference between the vantages, or None if they are equal.

    `cwd` is the working directory of the other process, and is looked up in this one.
    """
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
    # Python has no statx(2), but /proc knows the mount of an open descriptor.
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}") as lines:
            mount = next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")
    except OSError:  # no /proc: unknown equals nothing, so that commands run here
        return ""
    finally:
        os.close(fd)
    return f"{mount}:{directory_identity('/')}" if mount else ""


def _users() -> str:
    try:
        namespace = os.stat("/proc/self/ns/user").st_ino
    except OSError:  # as above
        return ""
    uid, gid = own_ids()
    return f"{namespace}:{uid}:{gid}"
