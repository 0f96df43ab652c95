"""Find the results by which code would run later, as the user of the master or with his rights.

A worker and a job may change every file below the writable root. Programs that the user starts
later execute some of them: hooks of a version control system, start files of a shell, termite's own
rules. A setuid program gives its rights to whoever starts it. A result that has such a file is
refused, and the command runs on the master's machine, where a plain build would have run it.

A file system may take several spellings for one name: it ignores case, characters of no width, or
dots at the end. A repository of git may have any name.
"""

import re
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator

from termite.engine.model import Change
from termite.engine.paths import is_within, join

_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID

# Names of files and symlinks in any directory, in lower case. A symlink may stand for a directory
# of such files.
_FILES = frozenset(
    b"""
    .git .hg .jj .config .vscode .envrc .tool-versions .termite-localrc .termite-at
    .bashrc .bash_profile .bash_login .bash_logout .bash_aliases .profile .inputrc .rvmrc
    .zshrc .zshenv .zprofile .zlogin .zlogout .kshrc .cshrc .tcshrc .login
    .xprofile .xinitrc .xsession .xsessionrc .pam_environment
    .gitconfig .hgrc .gdbinit .gdbearlyinit .lldbinit .pdbrc .pdbrc.py
    .vimrc .gvimrc .exrc .nvimrc .nvim.lua .lvimrc .local.vimrc .emacs .emacs.el .netrc .forward .rhosts .shosts
    .rprofile .pryrc .irbrc .ocamlinit .ghci .psqlrc .sqliterc
    .tmux.conf .screenrc .mailcap .bash_completion .lesskey .lessfilter
    """.split()
)
# Directories in which every file is one: of editors, of direnv, and those to which settings of git
# usually lead for hooks.
_DIRECTORIES = frozenset(
    b".ssh .vim .emacs.d .bashrc.d .zed .helix .direnv .husky .githooks .git-hooks .lefthook".split()
)
# Files at any depth below a directory of such a name. The path is searched once, from the first
# such directory on.
_DEEP = {
    b".git": rb"/(?: hooks(?:/|\Z) | config\Z | config\.worktree\Z | commondir\Z"
    rb" | (?: rebase-merge | rebase-apply | sequencer )/ )",
    b".jj": rb"/(?: config(?:\.toml)? | workspace-config\.toml | repo | git_target )\Z",
}
# Files just below a directory of such a name. Each takes a fixed time.
_NEAR = {
    b".hg": rb"/(?: hgrc(?:-not-shared)? | sharedpath )\Z",
    b".config": rb"/(?: git | hg | jj | fish | zsh | systemd | autostart | environment\.d"
    rb" | emacs | vim | nvim | direnv )(?:/|\Z)",
    b".vscode": rb"/(?: tasks | settings | launch | mcp )\.json\Z",
    b".local": rb"/(?: bin | share/(?: systemd | applications ))/",
    b".cargo": rb"/(?: config | config\.toml | env | bin/.* )\Z",
    b".mvn": rb"/(?: jvm\.config | maven\.config | extensions\.xml )\Z",
    b".repo": rb"/(?: repo | hooks )(?:/|\Z)",
}
_DEEP_BELOW = {name: re.compile(pattern, re.VERBOSE) for name, pattern in _DEEP.items()}
_NEAR_BELOW = {name: re.compile(pattern, re.VERBOSE | re.DOTALL) for name, pattern in _NEAR.items()}
# A repository of git without a working tree: by the usual name of its directory, or by the file
# without which a directory is none.
_BARE = re.compile(rb"\.git/(?: hooks(?:/|\Z) | config\Z )", re.VERBOSE)
_HEAD = b"HEAD"
# The directories and files of a repository of git that are later code, whatever its name is.
_PARTS = frozenset({b"hooks", b"rebase-merge", b"rebase-apply", b"sequencer"})
_PART_FILES = frozenset({b"config", b"config.worktree", b"commondir"})
_ENDS = (b"head", b".", b" ")
_MOST_PARTS = 8  # in one path; no honest one has two
# These are part of no name where the file system folds names: Default_Ignorable_Code_Point of
# Unicode.
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def find_later_code(
    changes: Iterable[Change], root: bytes, has_entry: Callable[[bytes], bool] = lambda path: False
) -> list[bytes]:
    """Return the paths by which the changes would make code run later, each below `root`.

    `root` is the writable root. A directory named `.git` is no danger by itself, as its entries are
    changes of their own. Deletions run nothing, and a directory's set-group-ID bit only chooses the
    group of new files. Linux ignores its set-user-ID bit, but other systems do not.

    `has_entry` returns whether something is at a path of the tree, or whether nobody knows that. It
    is asked for the heads of repositories. A second name of such a file is none of a build.
    """
    found = []
    for change in changes:
        attr = change.attr
        if attr is None:
            continue
        if stat.S_ISDIR(attr.mode):
            is_found = bool(attr.mode & stat.S_ISUID)
        else:
            is_found = bool(attr.mode & _SPECIAL_BITS) or _is_found(change.path, root, has_entry)
            is_found = is_found or (change.link_to is not None and _is_found(change.link_to, root, has_entry))
        if is_found:
            found.append(_split_root(change.path, root)[1])
    return found


def _is_found(path: bytes, root: bytes, has_entry: Callable[[bytes], bool]) -> bool:
    top, below = _split_root(path, root)
    folded = below.lower() if below.isascii() else _folded(below)
    is_suspect = b"/." in folded or b"./" in folded or b" /" in folded or b".git/" in folded
    if not is_suspect and not folded.startswith(b".") and not folded.endswith(_ENDS) and not _may_be_part(folded):
        return False  # as nearly all results
    folded = _folded(below)
    if _is_later_code(below, folded):
        return True
    if not _may_be_part(folded):
        return False
    for count, repository in enumerate(_repositories_above(below, folded)):
        if count == _MOST_PARTS or has_entry(join(join(top, repository), _HEAD)):
            return True
    return False


def _may_be_part(folded: bytes) -> bool:
    return (
        b"hooks" in folded
        or b"config" in folded
        or b"commondir" in folded
        or b"rebase-" in folded
        or b"sequencer" in folded
    )


def _split_root(path: bytes, root: bytes) -> tuple[bytes, bytes]:
    """Return the root and the path below it. A path outside of it is below the machine's root."""
    return (root, path[len(root) :].lstrip(b"/")) if is_within(path, root) else (b"", path)


def _repositories_above(path: bytes, folded: bytes) -> Iterator[bytes]:
    """Yield the directories of which the path would be later code, if they were repositories."""
    names, folded_names = path.split(b"/"), folded.split(b"/")
    at = 0
    for number, (name, seen) in enumerate(zip(names, folded_names, strict=True), 1):
        if seen in _PARTS or (number == len(names) and seen in _PART_FILES):
            yield path[: max(at - 1, 0)]
        at += len(name) + 1


def _folded(path: bytes) -> bytes:
    """Return a path as a file system may see it that takes several spellings for one name.

    Some directories of ext4 ignore case and characters of no width. vfat and servers of Windows
    ignore dots and spaces at the end of a name.
    """
    folded = path.lower()
    if not path.isascii():
        text = unicodedata.normalize("NFD", path.decode(errors="surrogateescape")).casefold()
        folded = _IGNORABLE.sub("", text).encode(errors="surrogateescape")
    if b"./" in folded or b" /" in folded or folded.endswith((b".", b" ")):
        folded = b"/".join(name.rstrip(b". ") for name in folded.split(b"/"))
    return folded


def _is_later_code(path: bytes, folded: bytes) -> bool:
    """Return whether a file or symlink at a path below the root makes code run later.

    This takes linear time: a worker may send a path of any names.
    """
    names = folded.split(b"/")
    if names[-1] in _FILES or names[-1] in _DIRECTORIES:
        return True
    at, searched = 0, set()
    for name in names[:-1]:
        at += len(name)
        if name in _DIRECTORIES or (name in _NEAR_BELOW and _NEAR_BELOW[name].match(folded, at)):
            return True
        if name in _DEEP_BELOW and name not in searched:
            searched.add(name)
            if _DEEP_BELOW[name].search(folded, at):
                return True
        at += 1
    is_head = path == _HEAD or path.endswith(b"/" + _HEAD)
    return _BARE.search(folded) is not None or (is_head and b".git" not in searched)
