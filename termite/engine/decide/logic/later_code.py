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
from collections.abc import Callable, Collection, Iterable, Iterator

from termite.engine.model import Change
from termite.engine.paths import from_root_down, is_within, join, split

HasEntry = Callable[[bytes], bool]
# A symlink of the user, and the places on its way: other symlinks, and the real path at the end.
KnownLink = tuple[bytes, tuple[bytes, ...]]

_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID

# Names of files and symlinks in any directory, in lower case. A symlink may stand for a directory
# of such files.
_FILES = frozenset(
    b"""
    .git .hg .jj .envrc .tool-versions .mise.toml .termite-localrc .termite-at
    .bashrc .bash_profile .bash_login .bash_logout .bash_aliases .profile .inputrc .rvmrc
    .zshrc .zshenv .zprofile .zlogin .zlogout .kshrc .mkshrc .cshrc .tcshrc .login
    .xprofile .xinitrc .xserverrc .xsession .xsessionrc .pam_environment .selected_editor
    .gitconfig .hgrc .gdbinit .gdbearlyinit .lldbinit .pdbrc .pdbrc.py .perldb
    .vimrc .gvimrc .exrc .nvimrc .nvim.lua .lvimrc .local.vimrc .emacs .emacs.el .nanorc
    .netrc .forward .procmailrc .rhosts .shosts .k5login .wgetrc .curlrc
    .rprofile .pryrc .irbrc .iex.exs .erlang .ocamlinit .ghci .octaverc .sbclrc .guile
    .psqlrc .sqliterc .my.cnf .mongorc.js .mongoshrc.js .pypirc
    .tmux.conf .screenrc .muttrc .mailcap .bash_completion .lesskey .lessfilter
    .bazelrc .bazeliskrc .bazelversion .jvmopts .sbtopts .latexmkrc latexmkrc
    .devcontainer.json .mcp.json
    """.split()
)
# Settings of package managers. Nothing reads those that lie in an installed package.
_UNPACKAGED = frozenset(b".npmrc .yarnrc .yarnrc.yml .pnp.cjs .pnp.loader.mjs".split())
_PACKAGES = b"node_modules"
# Directories in which every file is one: of editors, of direnv, and those to which settings of git
# usually lead for hooks.
_DIRECTORIES = frozenset(
    b"""
    .ssh .vim .emacs.d .bashrc.d .zed .helix .idea .devcontainer .cursor .direnv
    .husky .githooks .git-hooks .lefthook
    """.split()
)
# Below a directory of such a name at any depth. A slash at the end: every file of that directory.
# The path is searched once, from the first such directory on.
_DEEP = {
    b".git": b"hooks/ config config.worktree commondir rebase-merge/ rebase-apply/ sequencer/",
    b".jj": b"config config.toml workspace-config.toml repo git_target",
}
# Just below a directory of such a name. Each takes a fixed time.
_NEAR = {
    b".hg": b"hgrc hgrc-not-shared sharedpath",
    b".pijul": b"config",
    b"_darcs": b"prefs/defaults prefs/prefs",
    b".repo": b"repo/ hooks/",
    b".subversion": b"config",
    b".bazaar": b"bazaar.conf plugins/",
    b".config": b"git/ hg/ jj/ fish/ zsh/ nushell/ elvish/ powershell/ systemd/ autostart/ environment.d/"
    b" plasma-workspace/ openbox/ i3/ sway/ hypr/ emacs/ vim/ nvim/ helix/ kak/ gdb/ tmux/ kitty/ direnv/ mise/"
    b" go/ ccache/",
    b".local": b"bin/ lib/ share/systemd/ share/applications/ share/dbus-1/ share/bash-completion/ share/fish/"
    b" share/nvim/",
    b".vscode": b"tasks.json settings.json launch.json mcp.json",
    b".cargo": b"config config.toml env bin/",
    b".mvn": b"jvm.config maven.config extensions.xml",
    b".m2": b"settings.xml",
    b".gradle": b"gradle.properties init.gradle init.gradle.kts init.d/",
    b".yarn": b"releases/ plugins/ sdks/",
    b".julia": b"config/",
    b".aws": b"config credentials",
    b".kube": b"config",
    b".docker": b"config.json cli-plugins/",
    b".gnupg": b"gpg.conf gpg-agent.conf",
    b".vnc": b"xstartup",
}


def _below(words: bytes) -> re.Pattern[bytes]:
    """Return the pattern of these files and directories, and of all that is below the latter."""
    ends = (
        re.escape(word[:-1]) + rb"(?:/|\Z)" if word.endswith(b"/") else re.escape(word) + rb"\Z"
        for word in words.split()
    )
    return re.compile(rb"/(?:%b)" % b"|".join(ends))


def _on_the_way(words: bytes) -> re.Pattern[bytes]:
    """Return the pattern of the directories that lead to them, from the one with the table's name.

    A symlink in place of one could lead to a directory of any name, in which nobody looks for
    later code.
    """
    ways = {above for word in words.split() for above in from_root_down(split(word.rstrip(b"/"))[0])}
    return re.compile(rb"(?:%b)\Z" % b"|".join(b"/" + re.escape(way) if way else b"" for way in sorted(ways)))


_DEEP_BELOW = {name: _below(words) for name, words in _DEEP.items()}
_NEAR_BELOW = {name: (_below(words), _on_the_way(words)) for name, words in _NEAR.items()}
# A repository of git without a working tree: by the usual name of its directory, or by the file
# without which a directory is none.
_BARE = re.compile(rb"\.git/(?: hooks(?:/|\Z) | config\Z )", re.VERBOSE)
_HEAD = b"HEAD"
# The directories and files of a repository of git that are later code, whatever its name is.
_PARTS = frozenset({b"hooks", b"rebase-merge", b"rebase-apply", b"sequencer"})
_PART_FILES = frozenset({b"config", b"config.worktree", b"commondir"})
_ENDS = (b"head", b".", b" ", b"latexmkrc")
_MOST_PARTS = 8  # in one path; no honest one has two
# These are part of no name where the file system folds names: Default_Ignorable_Code_Point of
# Unicode.
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def _has_none(path: bytes) -> bool:
    return False


def find_later_code(
    changes: Iterable[Change], root: bytes, has_entry: HasEntry = _has_none, links: Collection[KnownLink] = ()
) -> list[bytes]:
    """Return the paths by which the changes would make code run later, each below `root`.

    `root` is the writable root. A directory named `.git` is no danger by itself, as its entries are
    changes of their own. Deletions run nothing, and a directory's set-group-ID bit only chooses the
    group of new files. Linux ignores its set-user-ID bit, but other systems do not.

    `has_entry` returns whether something is at a path of the tree, or whether nobody knows that. It
    is asked for the heads of repositories. A second name of such a file is none of a build. `links`
    are symlinks of the user for which `leads_to_later_code` is true.
    """
    found = []
    for change in changes:
        attr = change.attr
        if attr is None:
            continue
        if stat.S_ISDIR(attr.mode):
            is_found = bool(attr.mode & stat.S_ISUID)
        else:
            # A worker that names another path need not say truly what is there.
            is_link = stat.S_ISLNK(attr.mode) or change.link_to is not None
            is_found = bool(attr.mode & _SPECIAL_BITS) or _is_found(change.path, root, has_entry, is_link=is_link)
            is_found = is_found or (change.link_to is not None and _is_found(change.link_to, root, has_entry))
            is_found = is_found or any(_is_reached(change, link, root, has_entry, is_link=is_link) for link in links)
        if is_found:
            found.append(_split_root(change.path, root)[1])
    return found


def leads_to_later_code(link: bytes, root: bytes, has_entry: HasEntry = _has_none) -> bool:
    """Return whether what a symlink of the tree leads to may be later code.

    `root` and `has_entry` are as for `find_later_code`.
    """
    return _is_found(link, root, has_entry, is_link=True)


def _is_reached(change: Change, known: KnownLink, root: bytes, has_entry: HasEntry, *, is_link: bool) -> bool:
    """Return whether a change is made behind a symlink of the user, or leads it elsewhere."""
    link, places = known
    for path in (change.path, change.link_to or change.path):
        for place in places:
            if is_within(path, place) and _is_found(link + path[len(place) :], root, has_entry, is_link=is_link):
                return True
    return is_link and any(is_within(place, change.path) for place in places)


def _is_found(path: bytes, root: bytes, has_entry: HasEntry, *, is_link: bool = False) -> bool:
    top, below = _split_root(path, root)
    folded = below.lower() if below.isascii() else _folded(below)
    is_suspect = b"/." in folded or b"./" in folded or b" /" in folded or b".git/" in folded or b"_darcs" in folded
    if not is_suspect and not folded.startswith(b".") and not folded.endswith(_ENDS) and not _may_be_part(folded):
        return False  # as nearly all results
    folded = _folded(below)
    if _is_later_code(below, folded, is_link=is_link):
        return True
    if not _may_be_part(folded):
        return False
    for count, repository in enumerate(_repositories_above(below, folded)):
        head = join(repository, _HEAD)  # the repository may be the root itself, b""
        if count == _MOST_PARTS or has_entry(join(top, head)):
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


def _is_later_code(path: bytes, folded: bytes, *, is_link: bool) -> bool:
    """Return whether a file or symlink at a path below the root makes code run later.

    This takes linear time: a worker may send a path of any names.
    """
    names = folded.split(b"/")
    if names[-1] in _FILES or (names[-1] in _UNPACKAGED and _PACKAGES not in names):
        return True
    at, searched = 0, set()
    for name in names:
        at += len(name)
        if name in _NEAR_BELOW:
            below, on_the_way = _NEAR_BELOW[name]
            if below.match(folded, at) or (is_link and on_the_way.match(folded, at)):
                return True
        if name in _DIRECTORIES:
            return True
        if name in _DEEP_BELOW and name not in searched:
            searched.add(name)
            if is_link or _DEEP_BELOW[name].search(folded, at):
                return True
        at += 1
    is_head = path == _HEAD or path.endswith(b"/" + _HEAD)
    return _BARE.search(folded) is not None or (is_head and b".git" not in searched)
