"""Find out by its text whether a command sets modes of files, or depends on their owners.

A script that calls such a program inside is not recognized.

In a directory with a default access control list, the list replaces the umask for a file that is
made as usual, but not for a mode that a program sets.

Jobs see their user as the owner of every file. The result of a command that shows or keeps owners
is right on a worker only if all the files that it meets belong to him.
"""

import re

# They set the mode of their output. `ar` and `strip` set the usual one, which looks like that of
# the umask.
_PROGRAMS = "chmod|install|cp|ar|ranlib|strip|objcopy|tar|unzip|cpio|rsync|patch|git|svn|hg"
# A prefix is that of a cross compiler, as in arm-linux-gnueabi-ar.
_SETS_MODE = re.compile(rf"(?<![\w.-])(?:[\w.-]+-)?(?:{_PROGRAMS})(?![\w.-])|\bmkdir\b[^;&|\n]*\s-\w*m")

# They write owners into archives, print them, or depend on them. `test -r` and `test -x` are left
# out: jobs see only files that everybody may read.
_SHOW = (
    r"(?:tar|bsdtar|cpio|pax|rsync|stat|zip|mksquashfs|genisoimage|xorrisofs)(?![\w./-])"
    r"|ls(?=[^;&|\n]*?\s-\w*[lnog])"
    r"|find(?=[^;&|\n]*?\s-(?:user|uid|group|gid|nouser|nogroup|writable|ls|fls|printf|fprintf)\b)"
    r"|(?:test|\[)\s+(?:!\s+)?-[OGw]\s"
)
# They also give an owner to files if root runs them. git refuses a tree of another user.
_KEEP = r"|cp(?=[^;&|\n]*?\s-(?:\w*[ap]|-archive|-preserve))|git(?![\w./-])"
_SHOWS = re.compile(rf"(?<![\w.-])(?:{_SHOW})")
_SHOWS_OR_KEEPS = re.compile(rf"(?<![\w.-])(?:{_SHOW}{_KEEP})")
# The letters without which none of the patterns matches, for a fast no.
_LETTERS = "tar", "cpio", "pax", "rsync", "stat", "zip", "iso", "squashfs", "ls", "find", "test", "[", "cp", "git"

_PATH = re.compile(r"(?<![\w.~/+-])/[\w.+@%/-]*")
_COMMAND_FOLLOWS = re.compile(r"(?:^|[;&|({!`]|\b(?:then|do|else|exec|env|time))\s*\Z")
_LOOK_BACK = 16  # characters before a path that say whether a command follows
# Their files belong to the job, or to nobody in particular.
_OWN_PLACES = ("/dev", "/proc", "/sys", "/tmp", "/var/tmp")


def may_set_modes(text: str) -> bool:
    """Return whether the command with this text names a program that sets modes."""
    return _SETS_MODE.search(text) is not None


def depends_on_owners(text: str, root: str, *, is_mixed: bool, is_root: bool) -> bool:
    """Return whether the command with this text meets files of other users, and depends on that.

    `root` is the absolute path of the tree. `is_mixed`: the tree has files of other users or
    groups. `is_root`: the user is root, as whom a job finds the owner of most other files right.
    """
    if not any(letters in text for letters in _LETTERS):
        return False
    if is_mixed:
        return _SHOWS_OR_KEEPS.search(text) is not None
    return not is_root and _SHOWS.search(text) is not None and _names_outside(text, root)


def _names_outside(text: str, root: str) -> bool:
    """Return whether a word names a path outside the tree other than the program of a command."""
    for found in _PATH.finditer(text):
        path = found[0].rstrip("/") or "/"
        if any(path == top or path.startswith(f"{top}/") for top in (root.rstrip("/"), *_OWN_PLACES)):
            continue
        if not _COMMAND_FOLLOWS.search(text[max(found.start() - _LOOK_BACK, 0) : found.start()]):
            return True
    return False
