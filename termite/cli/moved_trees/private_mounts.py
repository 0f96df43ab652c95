"""Make a mount namespace in which a tree stands at another path, and join that of another process.

The namespace shows what the machine has, with two differences: the tree stands at the build
path, and an empty directory that nobody can write covers its own path. A program that names the
tree by its own path therefore fails, and never uses files that termite follows by another name.

Root needs only a mount namespace. Any other user also needs a user namespace, in which the own user
and group are themselves, and all others appear as nobody. Nothing is made on the disk if the first
part of the build path is missing in the root directory: a private root directory has it then.

The calls are not in Python 3.11. A process that makes or joins a user namespace must have only one
thread.
"""

import ctypes
import os
import stat
from errno import EINVAL, ENOSPC, ENOSYS, EPERM, ESRCH
from pathlib import Path

from termite.engine.errors import UserError

_NEWNS, _NEWUSER = 0x0002_0000, 0x1000_0000
_RDONLY, _REMOUNT, _BIND, _REC, _SLAVE = 1, 32, 4096, 16384, 1 << 19
_DETACH = 2
_ASIDE = ".aside-from-termite"
_COVER_OPTIONS = "mode=0555,size=4k,nr_inodes=2"
_COPY_OPTIONS = "mode=0755,size=4m"  # symlinks and mount points only
_FORBIDDEN = (EPERM, ENOSPC, EINVAL, ENOSYS)  # of unshare(2), when namespaces are forbidden or used up

_libc = ctypes.CDLL(None, use_errno=True)


def enter_private_mounts(own: Path, build_path: Path) -> None:
    """Move this process to a new namespace in which the tree `own` stands at `build_path`.

    Both paths have no symlinks in them. The current directory becomes `build_path`.
    Raise UserError if that is impossible; this process can then only end.
    """
    try:
        _unshare()
    except OSError as error:
        hint = "`termite-ctl doctor` checks user namespaces" if error.errno in _FORBIDDEN else ""
        raise UserError(f"no private mount namespace for {build_path}: {error.strerror}", hint=hint) from error
    try:
        _mount("none", "/", "", _SLAVE | _REC)  # what the machine mounts later is seen, and not the reverse
        _show(own, build_path)
        _mount("tmpfs", str(own), "tmpfs", _RDONLY, _COVER_OPTIONS)
        os.chdir(build_path)
    except OSError as error:
        raise UserError(f"cannot show {own} at {build_path}: {error}") from error


def join_mounts_of(pid: int) -> None:
    """Move this process to the mount namespace of a process of this user.

    The current directory becomes the root directory. Do nothing if both are in the same namespace.
    Raise UserError if that is impossible.
    """
    try:
        if os.path.samefile(f"/proc/{pid}/ns/mnt", "/proc/self/ns/mnt"):
            return
        process = os.pidfd_open(pid)
    except OSError as error:
        gone = "it has ended" if error.errno == ESRCH else error.strerror
        raise UserError(f"cannot look at process {pid}: {gone}") from error
    try:
        is_same_user_namespace = os.path.samefile(f"/proc/{pid}/ns/user", "/proc/self/ns/user")
        _check("setns", _libc.setns(process, _NEWNS if is_same_user_namespace else _NEWNS | _NEWUSER))
    except OSError as error:
        raise UserError(f"cannot join the mount namespace of process {pid}: {error.strerror}") from error
    finally:
        os.close(process)


def _unshare() -> None:
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        try:
            _check("unshare", _libc.unshare(_NEWNS))
            return
        except OSError as error:
            if error.errno != EPERM:  # root of a container may have no such right
                raise
    _check("unshare", _libc.unshare(_NEWUSER | _NEWNS))
    for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        Path("/proc/self", name).write_text(line)


def _show(own: Path, build_path: Path) -> None:
    """Bind the tree to its build path, which need not exist."""
    tree = os.open(own, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        place = build_path
        while not os.path.lexists(place):
            place = place.parent
        if place == Path("/"):
            _use_private_root(own, build_path)
            return
        if place != build_path:
            if not os.access(place, os.W_OK):
                _cover_with_writable(place, own)
            build_path.mkdir(parents=True)
        _mount(f"/proc/self/fd/{tree}", str(build_path), "", _BIND | _REC)
    finally:
        os.close(tree)


def _use_private_root(own: Path, build_path: Path) -> None:
    """Make a root directory that has all entries of the present one and the build path.

    The new one is mounted on the tree first, because any directory of ours would do.
    """
    _mount("tmpfs", str(own), "tmpfs", 0, _COPY_OPTIONS)
    (own / _ASIDE).mkdir()
    _check("pivot_root", _libc.pivot_root(os.fsencode(own), os.fsencode(own / _ASIDE)))
    old = Path("/", _ASIDE)
    os.chdir("/")
    _show_entries(old, Path("/"))
    build_path.mkdir(parents=True)
    _mount(f"{old}{own}", str(build_path), "", _BIND | _REC)
    _unmount(old)
    old.rmdir()
    _mount("none", "/", "", _REMOUNT | _BIND | _RDONLY)


def _cover_with_writable(directory: Path, own: Path) -> None:
    """Cover a directory, in which we can make nothing, with one that has the same entries.

    Until they are shown, the directory itself stands below a mount on the tree.
    """
    aside = own / _ASIDE
    _mount("tmpfs", str(own), "tmpfs", 0, _COPY_OPTIONS)
    aside.mkdir()
    _mount(str(directory), str(aside), "", _BIND | _REC)
    _mount("tmpfs", str(directory), "tmpfs", 0, _COPY_OPTIONS)
    _show_entries(aside, directory)
    _unmount(own)


def _show_entries(directory: Path, place: Path) -> None:
    """Show all entries of a directory in another one: symlinks as copies, all else as mounts."""
    for name in sorted(os.listdir(directory)):
        entry, shown = directory / name, place / name
        mode = entry.lstat().st_mode
        if stat.S_ISLNK(mode):
            shown.symlink_to(entry.readlink())
            continue
        if stat.S_ISDIR(mode):
            shown.mkdir()
        else:
            shown.touch()
        _mount(str(entry), str(shown), "", _BIND | _REC)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    words = (os.fsencode(source), os.fsencode(target), os.fsencode(kind) or None)
    _check(f"mount {target}", _libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(options) or None))


def _unmount(place: Path) -> None:
    _check(f"umount {place}", _libc.umount2(os.fsencode(place), _DETACH))


def _check(name: str, code: int) -> None:
    """Raise OSError if a call of the C library has failed."""
    if code != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
