"""Know where the commands of a build write outside the tree, and which commands name such a place.

A command that names such a place probably writes or reads there as well, and a worker has neither.
Only the text of a command counts, not its environment: DESTDIR stands in the MAKEFLAGS of all
commands of a build.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import islice

MAX_PLACES = 100  # of one build; a command that writes at a later one is known by its words only
MAX_DIRECTORIES = 1000  # for which patterns are kept
MERGED_DEPTH = 2  # /srv/a may stand for two directories below it, /srv may not
MAX_NAMES = 100  # of one place
MAX_FOUND = 100  # names in one command that are examined: a command line may have 600 KB
MAX_WORD = 1000  # characters before a name that are examined

# Compilers, headers and libraries stand here. A place is therefore a file, not its directory, which
# the commands of many builds name.
SYSTEM = ("/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr", "/var")

# Words in which a path is only a text for the compiler or the linker: no file is opened there.
_MENTION = re.compile(
    r"""(?:-D|-Wl,(?:-rpath|-R|-soname)|-f[a-z]+-prefix-map=|--?rpath[= ]|-install_name )[^\s;&|]*$""",
)
_PATH = re.compile(
    r"(?:(?<=[\s=:,;('\"<>|&]-[A-Za-z])|(?<![^\s=:,;('\"<>|&`]))[^\s=:,;()'\"<>|&`$*?-][^\s=:,;()'\"<>|&`$*?]*"
)
_BEFORE = r"(?:(?<![^\s'\"`=:,;()|&<>@])|(?<=(?<![^\s'\"])-[A-Za-z]))"
_AFTER = r"(?=[/\s'\"`=:,;()|&<>]|$)"


class OutsidePlaces:
    """The places outside the tree where commands of the present build wrote.

    Places are absolute paths. The same place may have other names: symlinks in the tree.
    """

    def __init__(self, writable_root: str) -> None:
        self._root = writable_root
        self._names: dict[str, dict[str, None]] = {}  # of each place: the absolute paths that lead to it
        # By the directory of a command: how it spells the names, and the pattern that finds them.
        self._patterns: dict[str, tuple[list[str], re.Pattern[str]]] = {}

    def __bool__(self) -> bool:
        return bool(self._names)

    def clear(self) -> None:
        """Forget all places, because a new build begins."""
        self._names.clear()
        self._patterns.clear()

    def add(self, paths: Sequence[str], names: Iterable[str] = ()) -> str:
        """Add the place at which a command wrote these paths, and return it.

        `names` are further absolute paths that lead there. If the place stands beside another one,
        the directory of both takes their place.
        """
        systems = (path for path in paths[:MAX_NAMES] if is_system(path))
        return self.add_place(common_place(paths, self._root), (*names, *systems))

    def add_place(self, place: str, names: Iterable[str] = ()) -> str:
        """Add a place, and further absolute paths that lead there. Return what stands for it."""
        if self.containing(place) and not set(names) - self._names[self.containing(place)].keys():
            return self.containing(place)
        found = dict.fromkeys([place, *names])
        for other in list(self._names):
            merged = _common_directory(place, other)
            if merged not in (place, other) and not self._may_stand_for_others(merged):
                continue
            found |= self._names.pop(other)
            place = merged
            found[place] = None
        if len(self._names) < MAX_PLACES:
            self._names[place] = dict.fromkeys(list(found)[:MAX_NAMES])
        self._patterns.clear()
        return place

    def containing(self, place: str) -> str:
        """Return the place that stands for this one, or "" if none does."""
        return next((known for known in self._names if _is_at_or_above(known, place)), "")

    def place_in(self, text: str, cwd: str) -> str:
        """Return the first place that a command's text names, or "" if it names none.

        `cwd` is the directory of the command; a relative path counts from there.
        """
        if not self._names:
            return ""
        if cwd not in self._patterns:
            if len(self._patterns) >= MAX_DIRECTORIES:
                self._patterns.clear()
            self._patterns[cwd] = self._pattern(cwd)
        spellings, pattern = self._patterns[cwd]
        if not any(spelling in text for spelling in spellings):
            return ""
        for found in islice(pattern.finditer(text), MAX_FOUND):
            if found.lastgroup and not _MENTION.search(text[max(found.end() - MAX_WORD, 0) : found.end()]):
                return list(self._names)[int(found.lastgroup[1:])]
        return ""

    def names_of(self, place: str) -> list[str]:
        """Return the absolute paths that lead to a place, the place itself included."""
        return list(self._names.get(place, ()))

    def _may_stand_for_others(self, directory: str) -> bool:
        is_deep = directory.count("/") >= MERGED_DEPTH
        return is_deep and not is_system(directory) and not _is_at_or_above(directory, self._root)

    def _pattern(self, cwd: str) -> tuple[list[str], re.Pattern[str]]:
        alternatives: list[str] = []
        all_spellings: list[str] = []
        for number, names in enumerate(self._names.values()):
            spellings = {spelling for name in names for spelling in (name, relative_to(name, cwd)) if spelling}
            joined = "|".join(re.escape(name) for name in sorted(spellings, key=len, reverse=True))
            alternatives.append(f"(?P<p{number}>{joined})")
            all_spellings += spellings
        return all_spellings, re.compile(rf"{_BEFORE}(?:\./){{0,8}}(?:{'|'.join(alternatives)}){_AFTER}")


def common_place(paths: Sequence[str], writable_root: str) -> str:
    """Return the directory of all these paths.

    If other commands name that directory for other reasons, return the first path itself. The
    directory is then above the tree, or one of the system.
    """
    place = _parent(paths[0])
    for path in paths[1:]:
        place = _common_directory(place, _parent(path))
    return paths[0] if _is_at_or_above(place, writable_root) or is_system(place) else place


def is_system(path: str) -> bool:
    """Return whether the path belongs to the parts of the system that many commands name."""
    return any(_is_at_or_above(top, path) for top in SYSTEM)


def paths_in(text: str) -> list[str]:
    """Return the parts of a command's text that may be paths."""
    return list(dict.fromkeys(_PATH.findall(text)))


def relative_to(path: str, directory: str) -> str:
    """Return an absolute path as it is written relative to a directory, "" if they are equal."""
    names, start = path.strip("/").split("/"), directory.strip("/").split("/")
    if start == [""]:
        start = []
    same = 0
    while same < min(len(names), len(start)) and names[same] == start[same]:
        same += 1
    return "/".join([".."] * (len(start) - same) + names[same:])


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _common_directory(one: str, other: str) -> str:
    """Return the deepest directory at or above both absolute paths."""
    same = []
    for name, its in zip(one.split("/"), other.split("/"), strict=False):
        if name != its:
            break
        same.append(name)
    return "/".join(same) or "/"


def _is_at_or_above(directory: str, path: str) -> bool:
    return directory == "/" or path == directory or path.startswith(directory + "/")
