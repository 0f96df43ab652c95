"""Know where the commands of a build write outside the tree, and which commands name such a place.

A command that names such a place probably writes or reads there as well, and a worker has neither.
Only the text of a command counts, not its environment: DESTDIR stands in the MAKEFLAGS of all
commands of a build.

The functions at the end find the paths in a text as its shell will see them. A text is no program:
a variable that the command sets itself, and what a script inside names, are not found.
"""

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from termite.engine.paths import is_inside

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

MAX_ENTERED = 8  # directories that one command enters by `cd`

_END = r"\s'\"=:,;()<>|&`$*?#\\{}\[\]"
# The paths in a word of a shell, also directly behind a letter such as that of -I.
_NAMED = re.compile(rf"(?:(?<![^'\"=:,;()<>|&`])|(?<=^-[A-Za-z])(?=[./]))([\w./@+~%][^{_END}]*)")
# Options of compilers and linkers behind which a directory or a file may also begin with a name.
_OPTION = re.compile(r"['\"]?-(?:[BFILTo](?=\w)|(?:iquote|isystem|idirafter|include)(?=[\w./]))")
_INNER_QUOTE = re.compile(r"(?<=[\w.}])['\"](?=/)")  # "$HOME"/x is one path
# A pattern of the shell, as far as it is one of fnmatch(3), too.
_PATTERN_SIGN = re.compile(r"[*?\[{]")
_PATTERN_REST = re.compile(r"[^\s/{}$`'\"\\;&|()<>]+(?![^\s/;&|()<>])")
# Variables of a shell, and the home directory, as they stand in a command. `~` is an operator of
# awk, too.
_VARIABLE = re.compile(
    r"\$(?:(\w+)|\{(\w+)(?:[-:+=?#%/^,@][^}$]*)?\})"
    r"|(?<![^\s'\"=:;()|&<>])(~)(?=/|['\"`:]|\s+-|\s*(?:[;&|)<>]|$))"
)
# The shell's `cd` without a word leads to the home directory.
_CD_HOME = re.compile(r"cd(?<![^\s;&|({`'\"]cd)(?=[ \t]*(?:[;&|)}`'\"<>\n]|$))")
# `cd` with a directory that is known, and where the next command begins.
_ENTERED = re.compile(
    r"cd(?<![^\s;&|({`'\"]cd)[ \t]+['\"]?([^\s;&|(){}<>'\"`$*?\\-][^\s;&|(){}<>'\"`$*?\\]*)['\"]?\s*(?:&&|\|\||[;\n])"
)
# In such words, and in those behind them, a path is only a text: no file is opened there.
_MENTIONED = re.compile(r"['\"]?(?:-D|-f[a-z]+-prefix-map=|--?rpath=|--remap-path-prefix=|CCACHE_BASEDIR=)")
_MENTION_FOLLOWS = frozenset(
    ["-rpath", "--rpath", "-install_name", "--remap-path-prefix", "-trimpath"]
    + [f"-Wl,{option}" for option in ("-rpath", "--rpath", "-R", "-soname", "-h", "-install_name", "-dynamic-linker")]
)
# The same for the linker, between the other words that the compiler passes on to it.
_LINKER_MENTIONS = re.compile(r",--?(?:rpath|soname|install_name|dynamic-linker|R|h)[=,][^,'\"]*")
# A path is no news to a job in an assignment that gives the variable what it has already.
_SHOWN_VARIABLES = ("PATH", "HOME", "PWD")


# A path is named up to the end of a name, and may stand behind an option such as -I.
_IN_NAME = re.compile(r"[\w.+~@%-]")
_LEAD = re.compile(r"[\w.+~%/-]*\Z")
MAX_LEAD = 100  # characters before a path that are examined


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
        return next((known for known in self._names if is_inside(place, known)), "")

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
        return is_deep and not is_system(directory) and not is_inside(self._root, directory)

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
    return paths[0] if is_inside(writable_root, place) or is_system(place) else place


def is_system(path: str) -> bool:
    """Return whether the path belongs to the parts of the system that many commands name."""
    return any(is_inside(path, top) for top in SYSTEM)


def system_directory(path: str) -> str:
    """Return the directory of a file or directory of the system, or "" for other paths."""
    directory = _parent(path)
    return directory if is_system(directory) else ""


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


def expanded(text: str, env: Mapping[str, str]) -> str:
    """Return the text with the values of the variables that it names, as far as they are known."""
    if "$" not in text and "~" not in text:
        return text
    text = _VARIABLE.sub(lambda found: env.get(found[1] or found[2] or "HOME", found[0]), text)
    return text.replace(":-", ":=")  # ${a:-/path}


def has_patterns(text: str) -> bool:
    """Return whether the text may have a pattern of the shell."""
    return "*" in text or "?" in text or "[" in text or "{" in text


def parts_by_directory(text: str, cwd: str, home: str) -> list[tuple[str, list[str]]]:
    """Return the words of a text with each directory from which their paths may count.

    Each `cd` enters one. If the text begins with `cd`, all else stands there; otherwise the words
    count from each directory, because only a shell knows where it goes back.
    """
    if "cd" not in text:  # as most
        return [(cwd, text.split())]
    if home:
        text = _CD_HOME.sub(lambda found: f"cd {home}", text)
    entered = list(islice(_ENTERED.finditer(text), MAX_ENTERED))
    if entered and entered[0].start() == 0:
        parts = [(cwd, [entered[0][1]])]
        cwd, text = _entered(cwd, entered[0][1]), text[entered.pop(0).end() :]
    else:
        parts = []
    words, directories = text.split(), [cwd]
    for found in entered:
        directories.append(_entered(directories[-1], found[1]))
    return [*parts, *((directory, words) for directory in dict.fromkeys(directories))]


def _entered(cwd: str, name: str) -> str:
    if name.startswith("/") and "/." not in name:
        return name.rstrip("/")
    return posixpath.normpath(f"{cwd}/{name}" if name[0] != "/" else name)


def named_paths(word: str, may_have_pattern: bool = True) -> list[tuple[str, str]]:
    """Return the paths in a word, but those that are only a text there.

    A path that ends with a pattern of the shell is returned as its directory and the pattern of the
    last name. The pattern is "" for other paths, and if the text has none.
    """
    is_option = word[0] in "-'\""
    if (is_option or word[0] == "C") and _MENTIONED.match(word):
        return []
    if "-Wl," in word:
        return [path for part in _LINKER_MENTIONS.sub("", word).split(",") if part for path in named_paths(part)]
    if "/" in word and ("'" in word or '"' in word):
        word = _INNER_QUOTE.sub("", word)
    if not may_have_pattern:  # as most texts
        paths = [(path, "") for path in _NAMED.findall(word)]
    else:
        paths = [_parted(word, found) for found in _NAMED.finditer(word)]
    if is_option and (option := _OPTION.match(word)) and (found := _NAMED.match(rest := word[option.end() :])):
        paths.append(_parted(rest, found))
    return paths


def _parted(word: str, found: re.Match[str]) -> tuple[str, str]:
    path = found[1]
    if not _PATTERN_SIGN.match(word, found.end()):
        return path, ""
    directory, _, begin = path.rpartition("/")
    rest = _PATTERN_REST.match(word, found.end())
    return directory or "./"["/" in path], begin + (rest[0] if rest else "*")


def repeats_variable(word: str, path: str, env: Mapping[str, str]) -> bool:
    """Return whether a word only gives a variable such as PATH a path that it has already."""
    name = word.strip("'\"").partition("=")[0]
    return name in _SHOWN_VARIABLES and path in env.get(name, "").split(":")


def is_mentioned_only(words: list[str], word: str) -> bool:
    """Return whether a word only stands where it names no file, such as behind -rpath."""
    places = [at for at, other in enumerate(words) if other == word]
    return all(at and words[at - 1] in _MENTION_FOLLOWS for at in places)


def names_path(text: str, path: str) -> bool:
    """Return whether a text names an absolute path, or one below it.

    `/x/proj-deps` and `/y/x/proj` do not name `/x/proj`, but `-I/x/proj` does.
    """
    at = text.find(path)
    while at >= 0:
        if not _IN_NAME.match(text, at + len(path)) and _may_begin(text[max(at - MAX_LEAD, 0) : at]):
            return True
        at = text.find(path, at + 1)
    return False


def _may_begin(before: str) -> bool:
    """Return whether an absolute path may begin behind this text."""
    lead = _LEAD.search(before)
    assert lead is not None, "the pattern matches the empty text"
    return not lead[0] or (lead[0].startswith("-") and "/" not in lead[0])
