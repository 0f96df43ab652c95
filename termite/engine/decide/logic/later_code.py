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

_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID

# Names of files and symlinks in any directory. A symlink may stand for a directory of such files.
_FILES = rb"""
    \.git | \.hg | \.ssh | \.config | \.vscode | \.envrc | \.termite-localrc
    | \.bashrc | \.bash_profile | \.bash_login | \.bash_logout | \.bash_aliases | \.profile
    | \.zshrc | \.zshenv | \.zprofile | \.zlogin | \.zlogout | \.kshrc | \.cshrc | \.tcshrc | \.login
    | \.xprofile | \.xinitrc | \.xsession | \.xsessionrc | \.pam_environment
    | \.gitconfig | \.hgrc | \.gdbinit | \.gdbearlyinit | \.lldbinit | \.pdbrc(?:\.py)?
    | \.vimrc | \.exrc | \.nvimrc | \.nvim\.lua | \.emacs | \.netrc | \.forward | \.rhosts
    | \.Rprofile | \.pryrc | \.irbrc | \.ocamlinit | \.ghci | \.psqlrc | \.sqliterc
    | \.tmux\.conf | \.screenrc | \.mailcap | \.bash_completion
"""
# Files below a directory of such a name.
_BELOW = rb"""
    \.git/(?:.*/)? (?:hooks(?:/.*)? | config | config\.worktree | commondir)
    | \.hg/ (?:hgrc(?:-not-shared)? | sharedpath)
    | \.git/(?:.*/)? (?:rebase-merge | rebase-apply | sequencer)/.*
    | \.ssh/.*
    | \.config/ (?:git | fish | systemd | autostart | environment\.d)(?:/.*)?
    | \.vscode/ (?:tasks | settings | launch)\.json
"""
_LATER_CODE = re.compile(rb"(?xsi) (?:^|/) (?:(?: %b ) | (?: %b )) $" % (_FILES, _BELOW))


def find_later_code(changes: Iterable[Change], root: bytes) -> list[bytes]:
    """Return the paths by which the changes would make code run later, each below `root`.

    `root` is the writable root. A directory named `.git` is no danger by itself, as its entries are
    changes of their own. Deletions run nothing, and a directory's set-group-ID bit only chooses the
    group of new files.
    """
    found = []
    for change in changes:
        attr = change.attr
        if attr is None:
            continue
        is_directory = stat.S_ISDIR(attr.mode)
        if (attr.mode & _SPECIAL_BITS and not is_directory) or (
            b"." in change.path and not is_directory and _LATER_CODE.search(change.path, len(root))
        ):
            found.append(change.path[len(root) :].lstrip(b"/"))
    return found
