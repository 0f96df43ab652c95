"""Find the entries of directories outside the tree that exist, and that jobs do not see.

The shell expands a pattern such as `*.h` by the entries of a directory. A private one would be
missing there without a word.
"""

import os
from fnmatch import fnmatchcase

from termite.engine import look_calls
from termite.engine.look_errors import is_answer
from termite.engine.paths import is_below, join
from termite.engine.tree.logic.visibility import MADE_BY_SANDBOX, OF_ONE_MACHINE, Exports
from termite.engine.tree.tree_disk import Disk


def hidden_entry(exports: Exports, directory: bytes, pattern: bytes) -> bytes:
    """Return an entry of an open directory that matches the pattern and that jobs do not see.

    Return b"" if there is none. Raise OSError if a look fails.
    """
    rules = exports.rules(directory)
    for name in _matching(directory, pattern):
        try:
            mode = look_calls.lstat(b"/" + join(directory, name)).st_mode
        except OSError as error:
            if not is_answer(error):
                raise
            continue
        if not exports.shows(rules, True, directory, name, mode):
            return join(directory, name)
    return b""


def place_of_one_machine(path: bytes, listed: bytes) -> bytes:
    """Return a path below /dev or /run that exists, or an entry of it that matches `listed`.

    Those that every sandbox has do not count. Return b"" if there is nothing, or if the path is
    elsewhere. Raise OSError if a look fails.
    """
    if path.partition(b"/")[0] not in OF_ONE_MACHINE or is_below(path, b"dev/fd"):
        return b""
    if path not in MADE_BY_SANDBOX:
        return path if look_calls.has_entry(b"/" + path) else b""
    names = _matching(path, listed) if listed else []
    found = (join(path, name) for name in names)
    return next((entry for entry in found if entry not in MADE_BY_SANDBOX), b"")


def may_have_entry(disk: Disk, exports: Exports, path: bytes) -> bool:
    """Return whether something is at a path to which results may go, or whether the look fails.

    No symlink is followed, and no other path is looked at: the path may come from a worker.
    """
    if not exports.is_writable(path):
        return False
    try:
        return disk.look(path) is not None
    except OSError:
        return True


def _matching(directory: bytes, pattern: bytes) -> list[bytes]:
    """Return the names in a directory that a shell takes for the pattern."""
    try:
        names = look_calls.listdir(b"/" + directory)
    except OSError as error:
        if not is_answer(error):
            raise
        return []
    shows_dots = pattern.startswith(b".")
    return [n for n in map(os.fsencode, names) if fnmatchcase(n, pattern) and (shows_dots or n[:1] != b".")]
