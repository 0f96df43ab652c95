"""Know the temporary directories of the machine, and the names in them that commands mention.

Every user and every program puts files there. Therefore jobs see only what all users may read, and
what a command of the build names. Some names never leave the machine: other programs keep
credentials and sockets below them, and the environment of every command may name those.
"""

import re
from collections.abc import Iterable

from termite.engine.paths import RESULT_BYTES, is_below, is_within

TEMPORARY = (b"tmp", b"var/tmp")

# With them a user names a directory for temporary files, such as one that only he may enter.
VARIABLES = (b"TMPDIR", b"TMP", b"TEMP", b"TEMPDIR")

_NEVER = re.compile(
    rb"krb5cc|\.?xauth|\.Xauth|ssh-|gpg-|tmux-|pulse-|dbus-|\.X|\.ICE-unix|systemd-private-|snap-private-tmp"
    rb"|\.termite-"
)
# A word of a command may have a path behind `=`, `:` or `,`, or behind an option of one letter.
_NAMED = re.compile(rb"(?<![\w.~/+-])(?:-[A-Za-z])?/((?:var/)?tmp/[^\s\0'\"`$;|&<>(){}\[\]*?=,:]+)")
_MARK = b"tmp/"


def temporary_above(path: bytes) -> bytes:
    """Return the temporary directory that `path` is below, or b"" if it is below none."""
    return next((top for top in TEMPORARY if is_below(path, top)), b"")


def is_never_shown(path: bytes) -> bool:
    """Return whether a path below a temporary directory belongs to a credential or a socket."""
    top = temporary_above(path)
    return bool(top) and _NEVER.match(path, len(top) + 1) is not None


def named_in(words: Iterable[bytes], root: bytes) -> list[bytes]:
    """Return the paths below temporary directories that the words name, but those within `root`.

    A path that could lead anywhere but down is left out.
    """
    words = tuple(words)
    if _MARK not in b"\0".join(words):  # as in most commands
        return []
    found = dict.fromkeys(
        path.rstrip(b"/") for word in words if _MARK in word for path in _NAMED.findall(word) if _is_plain(path)
    )
    return [path for path in found if not is_within(path, root) and not is_within(root, path)]


def chosen_in(environment: Iterable[bytes], root: bytes) -> list[bytes]:
    """Return the directories for temporary files that the entries NAME=value choose.

    They are absolute paths as they are written: with `.` and symlinks, wherever they lead. Those
    that are plainly within `root`, or are too long for a system call, do not count.
    """
    found = dict.fromkeys(
        value for name, _, value in (word.partition(b"=") for word in environment) if name in VARIABLES
    )
    chosen = [value for value in found if value.startswith(b"/") and len(value) <= RESULT_BYTES]
    return [value for value in chosen if not is_within(value.strip(b"/"), root)]


def other_words(environment: Iterable[bytes]) -> list[bytes]:
    """Return the entries NAME=value that may name a path, without those of `VARIABLES`."""
    return [word for word in environment if _MARK in word and word.partition(b"=")[0] not in VARIABLES]


def _is_plain(path: bytes) -> bool:
    """Return whether the path leads down only, and no system call refuses it as too long."""
    names = path.rstrip(b"/").split(b"/")
    return len(path) <= RESULT_BYTES and not {b"", b".", b".."}.intersection(names)
