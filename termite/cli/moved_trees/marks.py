"""Read and write the mark of a tree, which says at which path the tree is built.

A tree is built at one path for its life: what was compiled at one path has that path in it. The
mark is the file `.termite-at` in the top directory of the tree, and has the path in its only line.
The launcher reads it, too (native/launcher/surroundings/mark.c).

A directory that has the path which its mark names needs nothing special. This is so within the
namespace of such a build, and also for a tree which really stands at that path.

Every other user can put a file into a directory like /tmp, and would stop all builds below with a
mark. Such a mark does not count.

Every build waits for this module.
"""

import os
from errno import ELOOP
from pathlib import Path

from termite.engine.errors import Reason, UserError
from termite.engine.host.ownership import is_of_stranger

MARK = ".termite-at"
_MOST_BYTES = 4096  # as long as a path can be


def find_mark(directory: Path) -> tuple[Path, str] | None:
    """Return the nearest marked directory upwards from `directory`, and the path in its mark.

    Return None if there is none. Raise UserError if the mark cannot be read.
    """
    for place in (directory, *directory.parents):
        if path := read_mark(place):
            return place, path
    return None


def read_mark(top: Path) -> str:
    """Return the path in the mark of a tree, or "" if it has none. Raise UserError as above."""
    try:
        fd = os.open(top / MARK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == ELOOP and not is_of_stranger(top / MARK, top):
            raise _unreadable(top) from error
        return ""  # also if a directory on the way is closed to us: nobody has built there
    try:
        if is_of_stranger(fd, top):
            return ""
        text = os.fsdecode(os.read(fd, _MOST_BYTES)).removesuffix("\n")
    except OSError as error:
        raise _unreadable(top) from error
    finally:
        os.close(fd)
    if not text.startswith("/") or "\n" in text:
        raise _unreadable(top)
    return text


def _unreadable(top: Path) -> UserError:
    hint = "remove it, and what was built in the tree"
    return UserError(f"{top / MARK} has no path in it", hint=hint, reason=Reason.OTHER_PATH)


def write_mark(top: Path, path: str) -> None:
    """Mark a tree. Raise UserError if it has another mark, or if that is impossible."""
    try:
        with open(top / MARK, "x", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{path}\n")
    except FileExistsError:
        check_mark(top, path)
    except OSError as error:
        raise UserError(f"cannot write {top / MARK}: {error.strerror}") from error


def check_mark(top: Path, at: str) -> None:
    """Raise UserError if the tree at `top` must not be built at `at` ("": at its own path)."""
    marked = read_mark(top)
    if not marked or marked == (at or str(top)):
        return
    wanted = f", not at {at}" if at else ", not at its own path"
    raise UserError(
        f"{top} is built at {marked}{wanted}, as {MARK} there says",
        hint=f"use --at {marked}; or clean the tree, run termite-ctl shutdown, and remove {top / MARK}",
        reason=Reason.OTHER_PATH,
    )


def check_directory(directory: Path) -> None:
    """Raise UserError if a build in `directory` needs the flag --at, but does not have it."""
    if found := find_mark(directory):
        check_mark(found[0], "")
