"""Decide which of the master's files may leave it.

An *anchor* is a path at which the decision changes: the writable root, an exported directory, a
hidden path, /proc, /tmp. The deepest anchor at or above a path decides. Hidden entries are not even
listed, because a job must not be able to distinguish them from absent ones.
"""

import enum
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from termite.engine.paths import MASTER_SOCKET, from_root_down, is_below, is_within, join, split
from termite.engine.tree.logic.temporary_names import TEMPORARY, is_never_shown, temporary_above

STAGING = b".termite-staging"
AREA = STAGING + b"-"  # begins the name of a staging directory on another file system below the root

# Every sandbox needs these directories as mount points or as places to write, with these
# permissions if the machine has none. The contents of all but the temporary ones never leave the
# master. Passages are the exception: if the writable root is below /run, the directories that lead
# to it are shown.
STANDARD_DIRECTORIES = {
    b"proc": 0o555,
    b"sys": 0o555,
    b"dev": 0o755,
    b"run": 0o755,
    b"tmp": 0o1777,
    b"var/tmp": 0o1777,
}

# The sandbox makes these (native/sandbox/root.c). All else below /dev and /run is on the master's
# machine only: its devices, its daemons, and what local commands leave in /dev/shm.
OF_ONE_MACHINE = (b"dev", b"run")
_MADE = "null zero full random urandom tty fd stdin stdout stderr ptmx pts pts/ptmx shm"
MADE_BY_SANDBOX = frozenset((*OF_ONE_MACHINE, *(b"dev/" + name.encode() for name in _MADE.split())))

# Tools keep the user's passwords and tokens under these names. They are not shown in the
# directories of tools, which are exported without being asked for. A name without a dot only hides
# a file: it may be the directory of a library.
CREDENTIALS = frozenset(
    b"""
    .aws .azure .condarc .config .docker .git-credentials .gnupg .kube .netrc .npmrc .pgpass .pypirc .ssh .vault-token
    .yarnrc.yml auth.json credentials credentials.json credentials.toml hosts.yml id_dsa id_ecdsa id_ed25519 id_rsa
    npmrc pip.conf token tokens
    """.split()
)


class Visibility(enum.Enum):
    """The part of a directory that is shown to workers."""

    WHOLE = "whole"  # everything but hidden entries
    PUBLIC = "public"  # entries that every user of the master's machine may read
    PASSAGE = "passage"  # only directories that lead to a wholly visible anchor
    HIDDEN = "hidden"  # nothing, and its name is not listed either


@dataclass(frozen=True, slots=True)
class DirectoryRules:
    """The decisions that hold for the entries of one directory.

    `anchored` names have an anchor at or below them. `passages` are those of them that are, or lead
    to, a wholly visible anchor, a standard directory or programs. A passage that is a directory or
    a symlink is always shown. If `has_programs`, commands search the directory for programs: those
    that jobs must not see are shown as sealed. If `hides_credentials`, the names in CREDENTIALS are
    not shown. `sealed` names are those of files with settings, which are shown as sealed too.
    """

    visibility: Visibility
    passages: frozenset[bytes] = frozenset()
    anchored: frozenset[bytes] = frozenset()
    has_programs: bool = False
    hides_credentials: bool = False
    sealed: frozenset[bytes] = frozenset()


_PLAIN_RULES = tuple(
    {visibility: DirectoryRules(visibility, hides_credentials=hides) for visibility in Visibility}
    for hides in (False, True)
)


class Exports:
    """The anchors of one tree, and the decisions that follow. Nothing here reads the disk."""

    def __init__(
        self,
        writable_root: bytes,
        exports: Iterable[bytes],
        excludes: Iterable[bytes],
        hidden: Iterable[bytes],
        *,
        shares_temporary: bool = True,
    ) -> None:
        """Take paths of the tree.

        `excludes` and `hidden` mean the same here. `programs` are the directories of
        `show_programs`. `shares_temporary`: jobs see the temporary directories, and may leave new
        files there.
        """
        self.writable_root = writable_root
        self._inside = writable_root + b"/" if writable_root else b""
        self._watched: set[bytes] = set()
        self._exports = tuple(exports)
        self._anchors = {b"": Visibility.PUBLIC} | dict.fromkeys(STANDARD_DIRECTORIES, Visibility.PASSAGE)
        self._anchors |= dict.fromkeys(TEMPORARY if shares_temporary else (), Visibility.PUBLIC)
        self._anchors |= dict.fromkeys(self._exports, Visibility.WHOLE)
        self._anchors |= dict.fromkeys((*excludes, *hidden), Visibility.HIDDEN)
        self._anchors[writable_root] = Visibility.WHOLE
        self._anchors |= dict.fromkeys(
            (join(writable_root, MASTER_SOCKET.encode()), join(writable_root, STAGING)), Visibility.HIDDEN
        )
        shared = TEMPORARY if shares_temporary else ()
        self.temporary = tuple(top for top in shared if self._anchors[top] is not Visibility.HIDDEN)
        self._longest = max(map(len, self._anchors))
        self._anchored: dict[bytes, set[bytes]] = {}
        self._passages: dict[bytes, set[bytes]] = {}
        self._rules: dict[bytes, DirectoryRules] = {}
        self._chosen: set[bytes] = set()
        self.programs: set[bytes] = set()
        self._tools: set[bytes] = set()
        self._sealed: dict[bytes, set[bytes]] = {}
        for path, visibility in self._anchors.items():
            self._note_anchor(path, is_passage=visibility is Visibility.WHOLE or path in STANDARD_DIRECTORIES)

    def show(self, path: bytes) -> bool:
        """Show a private name below a temporary directory, whole. Return whether that is new.

        Return False for a path that is hidden, or belongs to a credential or a socket.
        """
        if self.visibility(path) in (Visibility.HIDDEN, Visibility.WHOLE) or is_never_shown(path):
            return False
        self._add(path, Visibility.WHOLE)
        return True

    def hide(self, path: bytes) -> None:
        """Undo `show` for a name that is gone: another program may take it."""
        directory, name = split(path)
        del self._anchors[path]
        if not any(is_below(anchor, path) for anchor in self._anchors):
            for names in (self._anchored, self._passages):
                names[directory].discard(name)
        self._rules.pop(directory, None)
        self._rules.pop(path, None)

    def choose(self, path: bytes) -> bool:
        """Show a directory in which commands put their temporary files. Return whether that is new.

        An entry of it is shown if other users might read the entry, could they enter the directory.
        If it is not below a temporary directory, or if those are not shared, none are.
        """
        if path in self._chosen or self.visibility(path) is Visibility.HIDDEN or is_never_shown(path):
            return False
        self._chosen.add(path)
        if self.visibility(path) is not Visibility.WHOLE:
            is_shared = temporary_above(path) in self.temporary
            self._add(path, Visibility.PUBLIC if is_shared else Visibility.PASSAGE)
        return True

    def is_opened(self, path: bytes) -> bool:
        """Return whether jobs see in this directory what others might read if they could enter."""
        return path in self._chosen and self.visibility(path) is Visibility.PUBLIC

    def opened_above(self, path: bytes) -> bytes:
        """Return the directory at or above `path` that counts as open, whatever its mode is.

        Return b"" if there is none.
        """
        while self._chosen and path and path not in self._chosen:
            path, _ = split(path)
        return path if self._chosen else b""

    def export(self, path: bytes, *, is_watched: bool) -> None:
        """Show a tool's directory or file whole from now on, but for CREDENTIALS in it.

        `is_watched`: it may change in the midst of a build, for example by a package manager that
        puts sources there. Do nothing if the path is hidden, or shown whole already.
        """
        if self.visibility(path) in (Visibility.HIDDEN, Visibility.WHOLE):
            return
        self._tools.add(path)
        if is_watched:
            self._watched.add(path)
        self._rules.clear()  # those of the directories below it, too
        self._add(path, Visibility.WHOLE)

    def lead_to(self, link: bytes) -> None:
        """Show a symlink, and the directories that lead to it, from now on."""
        if self.visibility(link) is not Visibility.HIDDEN:
            self._note_anchor(link, is_passage=True)

    def show_programs(self, directory: bytes) -> None:
        """Show the names of all programs in a directory from now on, and what leads to it."""
        if self.visibility(directory) is not Visibility.HIDDEN and not self.is_live(directory):
            self.programs.add(directory)
            self._rules.pop(directory, None)
            self._note_anchor(directory, is_passage=True)

    def seal(self, path: bytes) -> bool:
        """Show the name of a private file from now on, and what leads to it.

        Return False, and do nothing, if it has another rule.
        """
        if self.visibility(path) is not Visibility.PUBLIC or self.is_live(path) or temporary_above(path):
            return False
        directory, name = split(path)
        self._sealed.setdefault(directory, set()).add(name)
        self._note_anchor(path, is_passage=True)
        return True

    def is_sealed(self, path: bytes) -> bool:
        """Return whether `seal` was called for the path."""
        directory, name = split(path)
        return name in self._sealed.get(directory, ())

    def _add(self, path: bytes, visibility: Visibility) -> None:
        self._anchors[path] = visibility
        self._rules.pop(path, None)
        self._longest = max(self._longest, len(path))
        self._note_anchor(path, is_passage=True)

    def _note_anchor(self, path: bytes, *, is_passage: bool) -> None:
        for step in list(from_root_down(path))[1:]:
            parent, name = split(step)
            self._rules.pop(parent, None)
            self._anchored.setdefault(parent, set()).add(name)
            if is_passage:
                self._passages.setdefault(parent, set()).add(name)

    def visibility(self, path: bytes) -> Visibility:
        """Return the visibility that the deepest anchor at or above the path gives.

        Only as much of a long path is gone through as an anchor has.
        """
        if AREA in path and self._is_in_area(path):
            return Visibility.HIDDEN
        if len(path) > self._longest:
            path = path[: max(path.rfind(b"/", 0, self._longest + 1), 0)]
        while path not in self._anchors:
            path, _ = split(path)
        return self._anchors[path]

    def is_for_everybody(self, path: bytes) -> bool:
        """Return whether every user of this machine may read what jobs see at this path."""
        return self.visibility(path) is Visibility.PUBLIC and not self.opened_above(path)

    def rules(self, directory: bytes) -> DirectoryRules:
        """Return the decisions for the entries of a directory, to be passed to `shows`."""
        found = self._rules.get(directory)
        if found is not None:
            return found
        visibility = self.visibility(directory)
        has_tools = bool(self._tools) and not self.is_live(directory)
        hides_credentials = has_tools and any(is_within(directory, top) for top in self._tools)
        if directory not in self._anchored and directory not in self.programs:  # as most directories
            return _PLAIN_RULES[hides_credentials][visibility]
        found = DirectoryRules(
            visibility,
            frozenset(self._passages.get(directory, ())),
            frozenset(self._anchored.get(directory, ())),
            directory in self.programs,
            hides_credentials,
            frozenset(self._sealed.get(directory, ())),
        )
        if directory in self._anchored:  # few directories are
            self._rules[directory] = found
        return found

    def is_live(self, path: bytes) -> bool:
        """Return whether the path is the writable root or below it, so that builds change it."""
        return path.startswith(self._inside) or path == self.writable_root  # `is_within`, but asked ten times a job

    def is_volatile(self, path: bytes) -> bool:
        """Return whether the path may change in the midst of a build.

        Every drain must notice changes of volatile directories. Other directories that mirrors
        have been shown are watched as far as the limits of the system allow.
        """
        return self.is_live(path) or any(is_within(path, top) for top in self._watched)

    def is_writable(self, path: bytes) -> bool:
        """Return whether a result of a job may be written to this path, as far as its name says.

        Below a temporary directory it also depends on what stands there.
        """
        if not self.is_live(path):
            return temporary_above(path) in self.temporary and not self._is_exported(path)
        return path != self.writable_root and self.visibility(path) is Visibility.WHOLE

    def is_shared(self, path: bytes) -> bool:
        """Return whether jobs may leave something new at this path, outside the writable root."""
        if self.is_live(path) or not self.is_writable(path) or is_never_shown(path):
            return False
        return self.visibility(path) is not Visibility.HIDDEN

    def is_crowded(self, directory: bytes) -> bool:
        """Return whether other programs change this directory all the time."""
        return (directory in TEMPORARY or directory in self._chosen) and not self.is_live(directory)

    def shows(self, rules: DirectoryRules, is_open: bool, path: bytes, name: bytes, mode: int) -> bool:
        """Return whether the entry `name` of the directory `path` is shown.

        `rules` are those of the directory. `is_open`: other users may list it, and search every
        directory above it. `mode` is the entry's whole st_mode. Sockets and devices are never
        shown.
        """
        kind = stat.S_IFMT(mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO):
            return False
        visibility = rules.visibility
        if rules.hides_credentials and name in CREDENTIALS and (kind != stat.S_IFDIR or name.startswith(b".")):
            return False
        if name in rules.anchored:
            if name in rules.passages and kind in (stat.S_IFDIR, stat.S_IFLNK):
                return True
            visibility = self.visibility(join(path, name))
        if visibility is Visibility.PUBLIC:
            return is_open and is_public(mode) and not (path in TEMPORARY and is_never_shown(join(path, name)))
        return visibility is Visibility.WHOLE and not name.startswith(AREA)

    def _is_exported(self, path: bytes) -> bool:
        return any(is_within(path, top) for top in (*self._exports, *self._tools))

    def _is_in_area(self, path: bytes) -> bool:
        """Return whether the path is within a staging directory, wherever that is."""
        tail = path[len(self.writable_root) :] if self.is_live(path) else path
        return b"/" + AREA in b"/" + tail


def is_public(mode: int) -> bool:
    """Return whether a file of this st_mode can be read by other users.

    A directory must be searchable as well. A symlink always counts as readable: it reveals nothing
    but its target's name.
    """
    if stat.S_ISLNK(mode):
        return True
    wanted = 0o005 if stat.S_ISDIR(mode) else 0o004
    return mode & wanted == wanted
