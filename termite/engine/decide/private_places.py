"""Find commands that name a path which exists here, and which jobs do not see.

Such a command fails on a worker, or finds nothing where a local one finds something: `rm -rf` of a
private directory would end with 0 and remove nothing. So it runs on the master's machine. Symlinks
count as what they lead to: the object directory of a project may stand on another disk.

Every command is checked, so the paths that were found to be visible are kept for the build.
"""

import os
import re
import stat
from collections.abc import Callable, Mapping
from itertools import islice

MAX_WORDS = 1000  # of one command; later ones mostly stand in the same directories
MAX_KEPT = 50_000  # words and directories, about 150 bytes each

_END = r"\s'\"=:,;()<>|&`$*?#\\{}\[\]"
# The paths in a word of a shell, also directly behind a letter such as that of -I.
_PATHS = re.compile(rf"(?:(?<![^'\"=:,;()<>|&`])|(?<=^-[A-Za-z])(?=[./]))([\w./@+~%][^{_END}]*)")
# Variables of a shell, and the home directory, as they stand in a command.
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})|(?<![^\s'\"=:;()|&<>])(~)(?=/)")
# In such words, and in those behind them, a path is only a text: no file is opened there.
_MENTIONS = re.compile(r"['\"]?(?:-D|-Wl,|-f[a-z]+-prefix-map=|--?rpath=)")
_MENTION_FOLLOWS = ("-rpath", "--rpath", "-install_name")


class PrivatePlaces:
    """The private places that commands name, and the words that name none in the present build."""

    def __init__(self, writable_root: str, find_private: Callable[[bytes], bytes]) -> None:
        """`find_private` returns the first part of a path, without symlinks, that is not shown.

        It returns b"" if jobs see the path, or if there is nothing.
        """
        self._root = writable_root
        self._inside = writable_root + "/"
        self._find_private = find_private
        self._harmless: dict[str, set[str]] = {}  # words by the directory of the command
        self._directories: dict[str, str] = {}  # existing ones, without symlinks
        self._kept = 0

    def begin_build(self) -> None:
        """Forget what was found, because the disk may have changed."""
        self._harmless.clear()
        self._directories.clear()
        self._kept = 0

    def place_in(
        self, text: str, cwd: str, env: Mapping[str, str], is_droppable: Callable[[str], bool] = lambda path: False
    ) -> str:
        """Return the first place that the text names and jobs do not see, or "" if there is none.

        `cwd` is the directory from which relative paths count. `env` has the variables that stand
        in the text. `is_droppable` returns whether the command does not need a path outside the
        tree, such as a cache.
        """
        if "$" in text or "~" in text:
            text = _VARIABLE.sub(lambda found: env.get(found[1] or found[2] or "HOME", found[0]), text)
        harmless = self._harmless.setdefault(cwd, set())
        words = text.split()
        new = [word for word in islice(words, MAX_WORDS) if word not in harmless]
        for word in new:
            is_harmless = True
            for path in () if _MENTIONS.match(word) else _PATHS.findall(word):
                real = self._real(path if path[0] == "/" else f"{cwd}/{path}")
                if real.startswith(self._inside) or real == self._root:
                    # A later command may make a symlink of the missing directory.
                    is_harmless &= "/" not in path or os.path.isdir(os.path.dirname(real))
                    continue
                place = self._find_private(os.fsencode(real[1:]))
                if not place:
                    is_harmless &= os.path.lexists(real or "/")  # else a later command may make it
                elif _is_mentioned_only(words, word) or is_droppable(real):
                    is_harmless = False  # it may be harmful in another command
                else:
                    return "/" + os.fsdecode(place)
            if is_harmless and self._kept < MAX_KEPT:
                self._kept += 1
                harmless.add(word)
        return ""

    def _real(self, path: str) -> str:
        """Return a path without symlinks. The root directory is ""."""
        path = path.rstrip("/")
        if not path:
            return ""
        if found := self._directories.get(path):
            return found
        parent, _, name = path.rpartition("/")
        try:
            status = os.lstat(path)
        except (OSError, ValueError):
            return os.path.realpath(path) if name == ".." else f"{self._real(parent)}/{name}"
        if stat.S_ISLNK(status.st_mode) or name in (".", ".."):
            real = os.path.realpath(path)
            is_directory = os.path.isdir(real)
        else:
            real = f"{self._real(parent)}/{name}"
            is_directory = stat.S_ISDIR(status.st_mode)
        if is_directory and self._kept < MAX_KEPT:
            self._kept += 1
            self._directories[path] = real
        return real


def _is_mentioned_only(words: list[str], word: str) -> bool:
    """Return whether a word only stands where it names no file, such as behind -rpath."""
    places = [at for at, other in enumerate(words) if other == word]
    return all(at and words[at - 1] in _MENTION_FOLLOWS for at in places)
