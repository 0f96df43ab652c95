"""Find commands that name a path which exists here, and which jobs do not see.

Such a command fails on a worker, or finds nothing where a local one finds something: `rm -rf` of a
private directory would end with 0 and remove nothing. Therefore the command runs on the master's
machine. A FIFO or a socket counts as well, in the tree or outside. Its other end may be on the
master's machine or on another worker, and a command that opens a FIFO would wait forever. Symlinks
count as what they lead to: the object directory of a project may stand on another disk.

Every command is checked, so the paths that were found to be visible are kept for the build. If a
path names nothing, the directory is kept in which its first missing name would appear. While the
times of that directory stay the same, the path still names nothing. A path at which a look fails
counts as private until a look succeeds, because nobody knows what it names.
"""

import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from termite.engine import look_calls
from termite.engine.decide.logic.outside_places import (
    expanded,
    has_patterns,
    is_mentioned_only,
    named_paths,
    parts_by_directory,
    repeats_variable,
)
from termite.engine.look_errors import is_answer

MAX_WORDS = 1000  # of one command; later ones mostly stand in the same directories
MAX_KEPT = 50_000  # words and directories, about 150 bytes each
# Two changes of a directory may leave the same times, if the clock of the file system has not moved
# between them. A name counts as missing only if the directory had the same times so long before.
SETTLED_S = 0.1
# A file system whose times are whole seconds may have a clock of two seconds (vfat).
COARSE_SETTLED_S = 2.5
_WHOLE_SECOND_NS = 1_000_000_000

_MEETING_PLACES = (stat.S_IFIFO, stat.S_IFSOCK)

_RARELY_CHANGED = "/usr/"  # with thousands of entries
_DIRECTORY_OPTIONS = ("-B", "-F", "-I", "-L")
# Symlinks there lead to descriptors of the process that follows them.
_OF_PROCESS = ("/dev/", "/proc/")
# Those below them are shown, see `Exports.choose`.
_SHARED = ("/tmp/", "/var/tmp/")
# A path below the directories that these name is not shown because of them.
_TEMPORARY = ("TMPDIR", "TMP", "TEMP", "TEMPDIR")


class FindPrivate(Protocol):
    """A search for private places of the master's machine, such as `MasterTree.find_private`."""

    def __call__(self, path: bytes, *, is_spelled: bool, listed: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Unchanged:
    """A directory, its times and identity, and since when it had them (seconds of the clock)."""

    directory: str
    stamp: tuple[int, ...]
    since_s: float

    def is_so_still(self) -> bool:
        return _stamp(self.directory) == self.stamp


@dataclass(slots=True)
class _Words:
    """The words of commands that name no private place from one directory.

    `absent` words name something that is not there, unless the directory has changed.
    """

    harmless: set[str] = field(default_factory=set)
    absent: dict[str, _Unchanged] = field(default_factory=dict)

    def new(self, words: Sequence[str]) -> list[str]:
        """Return those of the words that must be checked."""
        words = [word for word in islice(words, MAX_WORDS) if word not in self.harmless]
        if not self.absent:
            return words
        checked: dict[_Unchanged, bool] = {}  # the words of a command mostly share one directory
        new: list[str] = []
        for word in words:
            if place := self.absent.get(word):
                if place not in checked:
                    checked[place] = place.is_so_still()
                if checked[place]:
                    continue
            new.append(word)
        return new


@dataclass(slots=True)
class _Judged:
    """The findings about the paths of one word: see `_Words`."""

    is_harmless: bool = True
    absent: set[_Unchanged] = field(default_factory=set)


class PrivatePlaces:
    """The private places that commands name, and the words that name none in the present build."""

    def __init__(
        self, writable_root: str, find_private: FindPrivate, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`find_private` returns the first part of a path, without symlinks, that is not shown.

        It returns b"" if jobs see the path, or if there is nothing, and raises OSError if a look
        fails. Its `is_spelled` is whether the
        command has the path in its text, as it is. Its `listed` is a shell pattern for entries of
        the path that count as well, b"" for none. `clock` returns seconds.
        """
        self._root = writable_root
        self._inside = writable_root + "/"
        self._find_private = find_private
        self._clock = clock
        self._words: dict[str, _Words] = {}  # by the directory of the command
        self._directories: dict[str, str] = {}  # existing ones, without symlinks
        self._unchanged: dict[str, _Unchanged] = {}
        self._kept = 0
        self._fifos = 0
        self._meeting_places: set[str] = set()  # FIFOs and sockets that were found

    def begin_build(self) -> None:
        """Forget what was found, because the disk may have changed."""
        self._words.clear()
        self._directories.clear()
        self._unchanged.clear()
        self._kept = 0
        self._meeting_places.clear()

    def see_fifos(self, fifos: int) -> None:
        """Check all words again if a FIFO has appeared in the tree since: this number has grown."""
        if fifos != self._fifos:
            self.begin_build()
            self._fifos = fifos

    def is_meeting_place(self, place: str) -> bool:
        """Return whether a place that `place_in` has returned is a FIFO or a socket."""
        return place in self._meeting_places

    def place_in(
        self, text: str, cwd: str, env: Mapping[str, str], is_droppable: Callable[[str], bool] = lambda path: False
    ) -> str:
        """Return the first place that the text names and jobs do not see, or "" if there is none.

        FIFOs and sockets count. `cwd` is the directory from which relative paths count. `env` has
        the variables that stand in the text. `is_droppable` returns whether the command does not
        need a path outside the tree, such as a cache. If a look at a path fails, return that path.
        """
        try:
            return self._find_place(text, cwd, env, is_droppable)
        except OSError as error:
            name = error.filename
            return os.fsdecode(name) if isinstance(name, str | bytes) and name else cwd

    def _find_place(self, text: str, cwd: str, env: Mapping[str, str], is_droppable: Callable[[str], bool]) -> str:
        chosen: tuple[str, ...] = ()
        if "$" in text:
            chosen = tuple(env[name] for name in _TEMPORARY if name in text and env.get(name))
        text = expanded(text, env)
        may_have_pattern = has_patterns(text)
        for directory, words in parts_by_directory(text, cwd, env.get("HOME", "")):
            known = self._words.get(directory) or self._words.setdefault(directory, _Words())
            for word in known.new(words):
                judged = _Judged()
                for path, listed in named_paths(word, may_have_pattern):
                    real, place = self._look(word, (path, listed), directory, chosen, judged)
                    if not place:
                        continue
                    is_text = is_mentioned_only(words, word) or repeats_variable(word, path, env) or is_droppable(real)
                    if place in self._meeting_places or not is_text:
                        return place
                    judged.is_harmless = False  # it may be harmful in another command
                self._keep(known, word, judged)
        return ""

    def _look(
        self, word: str, named: tuple[str, str], directory: str, chosen: tuple[str, ...], judged: _Judged
    ) -> tuple[str, str]:
        """Return a path of a word without symlinks, and the place that jobs do not see, or "".

        `named` is a pair of `named_paths`. Below the directories `chosen` nothing is shown because
        a command names it.
        """
        path, listed = named
        real, above = self._resolve(path if path[0] == "/" else f"{directory}/{path}")
        if real in self._meeting_places and _kind(real) in _MEETING_PLACES:
            return real, real
        if real.startswith(self._inside) or real == self._root:
            # A later command may make a symlink of the missing directory.
            judged.is_harmless &= "/" not in path or above == real.rpartition("/")[0]
            if word.startswith(_DIRECTORY_OPTIONS):
                judged.is_harmless &= f"{directory}/{path}" in self._directories
            return real, ""
        settled = self._settled(above)
        is_spelled = path.startswith(real) and not path.startswith(chosen)
        place = self._find_private(os.fsencode(real[1:]), is_spelled=is_spelled, listed=os.fsencode(listed))
        if place and (base := next(filter(path.startswith, chosen), "")):
            place = self._hidden_below(self._resolve(base)[0], real, place)
        if place:
            return real, "/" + os.fsdecode(place)
        judged.is_harmless &= not listed or real.startswith(_RARELY_CHANGED)
        if not look_calls.has_entry(real or "/"):  # a later command may make it
            judged.is_harmless &= settled is not None
            judged.absent |= {settled} if settled else set()
        return real, ""

    def _hidden_below(self, base: str, real: str, place: bytes) -> bytes:
        """Return the place that jobs do not see on a path below a directory of temporary files.

        The directory is shown before a job starts that uses it, with what others might read there
        if they could enter. `place` is what is not shown yet. Other directories are shown empty.
        """
        inside = f"{base}/"
        if not real.startswith(_SHARED) or place.startswith(os.fsencode(inside[1:])):
            return place
        if real != base and not real.startswith(inside):
            return place
        entry = base
        for name in filter(None, real[len(base) :].split("/")):
            entry = f"{entry}/{name}"
            mode = _mode(entry)
            wanted = 0o005 if stat.S_ISDIR(mode) else 0o004
            if mode and mode & wanted != wanted:
                return os.fsencode(entry[1:])
        return b""

    def _keep(self, known: _Words, word: str, judged: _Judged) -> None:
        """Keep a word that names no private place, as far as later commands may rely on that."""
        if not judged.is_harmless or len(judged.absent) > 1 or self._kept >= MAX_KEPT:
            return
        self._kept += 1
        if judged.absent:
            known.absent[word] = judged.absent.pop()
        else:
            known.harmless.add(word)

    def _settled(self, directory: str) -> _Unchanged | None:
        """Return the directory if it had its times for SETTLED_S before this call.

        Everything that was missing in it just now is missing until it has other times.
        """
        stamp, now_s = _stamp(directory), self._clock()
        if not stamp:
            return None
        known = self._unchanged.get(directory)
        if known is None or known.stamp != stamp:
            self._unchanged[directory] = _Unchanged(directory, stamp, now_s)
            return None
        least_s = COARSE_SETTLED_S if all(time_ns % _WHOLE_SECOND_NS == 0 for time_ns in stamp[2:4]) else SETTLED_S
        return known if now_s - known.since_s >= least_s else None

    def _resolve(self, path: str) -> tuple[str, str]:
        """Return a path without symlinks, and the directory that has it or lacks its first part.

        The path of the root directory is "". The directory is "" if there is none, or if the disk
        refuses to say. Raise OSError if a look fails.
        """
        path = path.rstrip("/")
        if not path:
            return "", ""
        if found := self._directories.get(path):
            return found, _above(found)
        try:
            status = look_calls.lstat(path)
        except FileNotFoundError:
            return self._resolve_missing(path)
        except ValueError:  # no path can have this name
            return self._resolve_text(path), ""
        except OSError as error:
            if not is_answer(error):
                raise
            return self._resolve_text(path), ""
        parent, _, name = path.rpartition("/")
        is_followed = not path.startswith(_OF_PROCESS)
        if (stat.S_ISLNK(status.st_mode) and is_followed) or name in (".", ".."):
            real = _real(path).rstrip("/")
            kind = _kind(real or "/")
            above = _above(real) if kind else ""
        else:
            real = f"{self._resolve(parent)[0]}/{name}"
            kind = stat.S_IFMT(status.st_mode)
            above = _above(real)
        if kind == stat.S_IFDIR and self._kept < MAX_KEPT:
            self._kept += 1
            self._directories[path] = real
        elif kind in _MEETING_PLACES:
            self._meeting_places.add(real)
        return real, above

    def _resolve_missing(self, path: str) -> tuple[str, str]:
        """Do as `_resolve` for a path that is not there: go down from the last known directory."""
        way = path.rpartition("/")[0]
        while way and way not in self._directories:
            way = way.rpartition("/")[0]
        names = [name for name in path[len(way) :].split("/") if name]
        real = self._directories.get(way, "")
        while len(names) > 1 and look_calls.has_entry(next_way := f"{way}/{names[0]}"):
            way = next_way
            real = self._resolve(way)[0]
            del names[0]
            if way not in self._directories:  # a file, a symlink that leads nowhere, or too many
                return self._resolve_text(path), ""
        if "." in names or ".." in names:
            return self._resolve_text(path), ""
        return "/".join((real, *names)), real or "/"

    def _resolve_text(self, path: str) -> str:
        """Do as `_resolve` for a path of which the disk knows the first part only."""
        parent, _, name = path.rpartition("/")
        return _real(path) if name == ".." else f"{self._resolve(parent)[0]}/{name}"


def _above(real: str) -> str:
    return real.rpartition("/")[0] or "/"


def _real(path: str) -> str:
    """Return a path without its symlinks, also if nothing is there.

    Raise OSError if a look fails.
    """
    return look_calls.real_path(path) or os.path.realpath(path)


def _kind(path: str) -> int:
    """Return the type of what is at a path without symlinks, or 0 if nothing is there.

    Raise OSError if the look fails.
    """
    return stat.S_IFMT(_mode(path))


def _mode(path: str) -> int:
    """Return the st_mode of what is at a path, as `_kind` does."""
    try:
        return look_calls.lstat(path).st_mode
    except ValueError:  # no path can have this name
        return 0
    except OSError as error:
        if not is_answer(error):
            raise
        return 0


def _stamp(directory: str) -> tuple[int, ...]:
    """Return what differs after an entry has come or gone; () if the directory is not seen."""
    try:
        found = look_calls.stat(directory)
    except (OSError, ValueError):
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_nlink
