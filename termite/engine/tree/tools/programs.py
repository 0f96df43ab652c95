"""Find the programs that the user's search path leads to, and that jobs must not see.

A job would not find such a program, and silently run another one of the same name, from a later
directory of PATH. Therefore the name is shown as a *sealed* program: a file that no job can open.
The command that tries it runs on the master's machine instead.

A program counts as unseen if its file is private, if it is a symlink to a private file, or if it is
a script whose interpreter is private.
"""

import os
import stat
from collections.abc import Callable
from errno import EINVAL, EISDIR, ENODEV, ENXIO

from termite.engine import look_calls
from termite.engine.look_errors import GONE, REFUSED, is_answer
from termite.engine.model import Attr
from termite.engine.script_heads import SCRIPT_HEAD_BYTES, script_interpreter
from termite.engine.tree.logic.attrs import Seen
from termite.engine.tree.logic.times import wire_ns

# The system's own directories: their symlinks and scripts do not lead to private files, and there
# are thousands of them.
SYSTEM_DIRECTORIES = frozenset((b"bin", b"sbin", b"usr/bin", b"usr/sbin"))
MAX_LINKS = 40  # as many as the kernel follows
NO_FILE = (EINVAL, EISDIR, ENODEV, ENXIO)  # of a directory, a socket or a device

IsShown = Callable[[bytes], bool]


def sealed_file(fd: int, name: bytes, right: int) -> Seen | None:
    """Return the entry `name` of the open directory `fd` as a sealed file.

    Return None if it is no file to which this user has the `right`, os.R_OK or os.X_OK. A sealed
    file has no stamp, and never a digest. It is not empty, because the content of an empty file is
    known without opening. Raise OSError if the disk does not say what is there, or refuses.
    """
    try:
        st = look_calls.stat(name, dir_fd=fd)
    except OSError as error:  # gone, or a symlink to nothing
        if error.errno not in GONE:
            raise
        return None
    if not stat.S_ISREG(st.st_mode) or not look_calls.has_right(name, right, dir_fd=fd):
        return None
    return Seen(Attr(st.st_mode & ~(stat.S_ISUID | stat.S_ISGID), max(st.st_size, 1), wire_ns(st.st_mtime_ns)))


def seal_unless_refused(fd: int, name: bytes, right: int, *, is_shown: bool) -> Seen | None:
    """Do as `sealed_file`. If it is refused and not shown, raise the error, so that it is noted."""
    try:
        return sealed_file(fd, name, right)
    except OSError as error:
        if not is_shown or error.errno not in REFUSED:
            raise
        return None  # a symlink that leads nowhere for this user


def leads_away(directory: bytes, name: bytes, mode: int, is_shown: IsShown) -> bool:
    """Return whether a program leads to a file that jobs do not see, by `is_shown`.

    `mode` is the entry's own st_mode. Raise OSError if a look fails.
    """
    if directory in SYSTEM_DIRECTORIES:
        return False
    path = os.path.join(b"/", directory, name)
    if stat.S_ISLNK(mode):
        links, path = way_to(path)
        if not look_calls.has_right(path, os.X_OK):
            return False  # it leads to nothing on this machine, too
        if not all(map(is_shown, [link.strip(b"/") for link in links[1:]])) or not is_shown(path.strip(b"/")):
            return True
    elif not (stat.S_ISREG(mode) and mode & 0o111):
        return False
    interpreter = _interpreter_of(path)
    is_usable = bool(interpreter) and look_calls.has_right(interpreter, os.X_OK)
    return is_usable and not _is_way_shown(interpreter, is_shown)


def _never(step: bytes) -> bool:
    return False


def way_to(path: bytes, stops_at: Callable[[bytes], bool] = _never) -> tuple[list[bytes], bytes]:
    """Return the symlinks that lead to an absolute path, in their order, and the real path.

    The rest of a path that does not exist is kept as it is. The way ends before a place
    for which `stops_at` returns True, and the real path is b"" then. Raise OSError if a look
    fails.
    """
    links: list[bytes] = []
    waiting = [part for part in reversed(path.split(b"/")) if part]
    real = b""
    while waiting:
        part = waiting.pop()
        if part == b".":
            continue
        if part == b"..":
            real = real.rpartition(b"/")[0]
            continue
        step = real + b"/" + part
        if stops_at(step):
            return links, b""
        try:
            target = look_calls.readlink(step)
        except OSError as error:  # no symlink (EINVAL), or nothing
            if error.errno != EINVAL and not is_answer(error):
                raise
            real = step
            continue
        if len(links) >= MAX_LINKS:
            break
        links.append(step)
        if target.startswith(b"/"):
            real = b""
        waiting += [part for part in reversed(target.split(b"/")) if part]
    return links, real or b"/"


def _is_way_shown(path: bytes, is_shown: IsShown) -> bool:
    links, real = way_to(path)
    return all(is_shown(step.strip(b"/")) for step in (*links, real))


def _interpreter_of(path: bytes) -> bytes:
    """Return the absolute path of a script's interpreter, or b"" if the file is no script."""
    try:
        fd = look_calls.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in NO_FILE and not is_answer(error):
            raise
        return b""
    try:
        head = look_calls.read(fd, SCRIPT_HEAD_BYTES)
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        return b""
    finally:
        os.close(fd)
    found = script_interpreter(head)
    return found if found.startswith(b"/") else b""
