"""Find the results by which code would run later, as the user of the master or with his rights.

A worker and a job may change every file below the writable root. Programs that the user starts
later execute some of them: hooks of a version control system, start files of a shell, termite's own
rules. A setuid program gives its rights to whoever starts it. A result that has such a file is
refused, and the command runs on the master's machine, where a plain build would have run it.
"""

import re
import stat
from collections.abc import Iterable

from termite.engine.model import Change
from termite.engine.paths import is_within

_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID

# Names of files and symlinks in any directory, in lower case. A symlink may stand for a directory
# of such files.
_FILES = frozenset(
    b"""
    .git .hg .jj .config .vscode .envrc .termite-localrc
    .bashrc .bash_profile .bash_login .bash_logout .bash_aliases .profile .inputrc .rvmrc
    .zshrc .zshenv .zprofile .zlogin .zlogout .kshrc .cshrc .tcshrc .login
    .xprofile .xinitrc .xsession .xsessionrc .pam_environment
    .gitconfig .hgrc .gdbinit .gdbearlyinit .lldbinit .pdbrc .pdbrc.py
    .vimrc .gvimrc .exrc .nvimrc .nvim.lua .emacs .emacs.el .netrc .forward .rhosts .shosts
    .rprofile .pryrc .irbrc .ocamlinit .ghci .psqlrc .sqliterc
    .tmux.conf .screenrc .mailcap .bash_completion
    """.split()
)
# Directories in which every file is one.
_DIRECTORIES = frozenset({b".ssh", b".vim", b".emacs.d", b".bashrc.d"})
# Files at any depth below a directory of such a name. The path is searched once, from the first
# such directory on.
_DEEP = {
    b".git": rb"/(?: hooks(?:/|\Z) | config\Z | config\.worktree\Z | commondir\Z"
    rb" | (?: rebase-merge | rebase-apply | sequencer )/ )",
    b".jj": rb"/config(?:\.toml)?\Z",
}
# Files just below a directory of such a name. Each takes a fixed time.
_NEAR = {
    b".hg": rb"/(?: hgrc(?:-not-shared)? | sharedpath )\Z",
    b".config": rb"/(?: git | hg | jj | fish | zsh | systemd | autostart | environment\.d"
    rb" | emacs | vim | nvim | direnv )(?:/|\Z)",
    b".vscode": rb"/(?: tasks | settings | launch )\.json\Z",
    b".local": rb"/share/(?: systemd | applications )/",
}
_DEEP_BELOW = {name: re.compile(pattern, re.VERBOSE) for name, pattern in _DEEP.items()}
_NEAR_BELOW = {name: re.compile(pattern, re.VERBOSE) for name, pattern in _NEAR.items()}
# A repository of git without a working tree: by the usual name of its directory, or by the file
# without which a directory is none.
_BARE = re.compile(rb"\.git/(?: hooks(?:/|\Z) | config\Z )", re.VERBOSE)
_HEAD = b"HEAD"


def find_later_code(changes: Iterable[Change], root: bytes) -> list[bytes]:
    """Return the paths by which the changes would make code run later, each below `root`.

    `root` is the writable root. A directory named `.git` is no danger by itself, as its entries are
    changes of their own. Deletions run nothing, and a directory's set-group-ID bit only chooses the
    group of new files. Linux ignores its set-user-ID bit, but other systems do not.
    """
    found = []
    for change in changes:
        attr = change.attr
        if attr is None:
            continue
        path = change.path
        below = path[len(root) :].lstrip(b"/") if is_within(path, root) else path
        if stat.S_ISDIR(attr.mode):
            is_found = bool(attr.mode & stat.S_ISUID)
        else:
            is_found = bool(attr.mode & _SPECIAL_BITS) or _is_later_code(below)
        if is_found:
            found.append(below)
    return found


def _is_later_code(path: bytes) -> bool:
    """Return whether a file or symlink at a path below the root makes code run later.

    This takes linear time: a worker may send a path of any names.
    """
    folded = path.lower()  # some file systems do not tell .git and .GIT apart
    if not (b"/." in folded or folded.startswith(b".") or b".git/" in folded or path.endswith(_HEAD)):
        return False  # as nearly all results
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
