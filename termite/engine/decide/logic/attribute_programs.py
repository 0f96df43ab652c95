"""Find out by its text whether a command sets modes of files, or depends on their owners.

A script that calls such a program inside is not recognized.

In a directory with a default access control list, the list replaces the umask. It does so for a
file that is made as usual, but not for a mode that a program sets.

Jobs see their user as the owner of every file. The result of a command that shows or keeps owners
is right on a worker only if all the files that it meets belong to him.
"""

import re

from termite.engine.paths import is_inside

# They make files as usual, and leave the umask alone. A linker only adds to the mode of its output
# what the umask allows. The prefix is that of a cross compiler, as in arm-linux-gnueabi-gcc.
_COMPILERS = r"(?:[\w.]+-)*(?:gcc|g\+\+|cc|c\+\+|cpp|clang|clang\+\+|gfortran|as|ld|nasm|yasm)(?:-[\d.]+)?"
_MAKERS = (
    "bison|cat|cut|date|diff|echo|expr|flex|grep|head|ln|mkfifo|od|paste|printf|sort|tac|tail|tee|touch|tr|uniq|wc"
)
_OTHERS = (
    r"\[|basename|cd|dirname|egrep|exec|exit|export|false|fgrep|pwd|read|rm|rmdir|seq|set|shift|sleep|test|true|unset"
)
_WORDS_OF_SHELL = "!|{|}|case|do|done|elif|else|esac|fi|for|if|in|then|time|until|while|:|break|continue|wait"
_USUAL = re.compile(rf"{_COMPILERS}|{_MAKERS}|{_OTHERS}|{_WORDS_OF_SHELL}")
# A command of a shell: what stands before the program, its name, and the rest up to the next one.
_SEPARATORS = re.compile(r"&&|\|\||[;&|\n()`]|\$\(")
_REDIRECTED = re.compile(r"\d*[<>]+&?\s*[^\s<>]+|\d*>&\d")
_ASSIGNED = re.compile(r"[A-Za-z_]\w*=\S*")
_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\`$])*\"")
_BEFORE_A_PROGRAM = ("!", "{", "do", "else", "exec", "if", "elif", "then", "time", "until", "while")

# What stands behind the name of a program that writes owners into archives, prints them, or depends
# on them. `test -r` and `test -x` are left out: jobs see only files that everybody may read.
_ENDS = r"(?![\w./-])"
_ASKS = r"\s+(?:!\s+)?-[OGw]\s"
_SHOW = dict.fromkeys(
    ("tar", "bsdtar", "cpio", "pax", "rsync", "stat", "zip", "mksquashfs", "genisoimage", "xorrisofs"), _ENDS
) | {
    "ls": r"(?=[^;&|\n]*?\s-\w*[lnog])",
    "find": r"(?=[^;&|\n]*?\s-(?:user|uid|group|gid|nouser|nogroup|writable|ls|fls|printf|fprintf)\b)",
    "test": _ASKS,
    "[": _ASKS,
}
# They also give an owner to files if root runs them. git refuses a tree of another user.
_KEEP = {"cp": r"(?=[^;&|\n]*?\s-(?:\w*[ap]|-archive|-preserve))", "git": _ENDS}


def _patterns(programs: dict[str, str]) -> dict[str, re.Pattern[str]]:
    """Return a pattern for each program.

    It begins with the letters of the name, because the engine then finds it ten times as fast.
    """
    escaped = {name: re.escape(name) for name in programs}
    return {name: re.compile(rf"{escaped[name]}(?<![\w.-]{escaped[name]}){rest}") for name, rest in programs.items()}


_SHOWS = _patterns(_SHOW)
_SHOWS_OR_KEEPS = _patterns({**_SHOW, **_KEEP})

_PATH = re.compile(r"(?<![\w.~/+-])/[\w.+@%/-]*")
_COMMAND_FOLLOWS = re.compile(r"(?:^|[;&|({!`]|\b(?:then|do|else|exec|env|time))\s*\Z")
_LOOK_BACK = 16  # characters before a path that say whether a command follows
# Their files belong to the job, or to nobody in particular.
_OWN_PLACES = ("/dev", "/proc", "/sys", "/tmp", "/var/tmp")


def may_set_modes(text: str) -> bool:
    """Return whether a command may set modes of files, or the umask, itself.

    Return False only if all programs that the text names are known to make files as usual.
    """
    plain = _REDIRECTED.sub(" ", _QUOTED.sub("Q", text))
    return not all(map(_is_usual, _SEPARATORS.split(plain)))


def _is_usual(command: str) -> bool:
    """Return whether one command of a shell makes files as usual."""
    words = command.split()
    while words and (words[0] in _BEFORE_A_PROGRAM or _ASSIGNED.fullmatch(words[0])):
        del words[0]
    if not words:
        return True
    program = words[0].rpartition("/")[2]
    if program == "mkdir":
        return not any(word.startswith("-") and "m" in word.partition("=")[0] for word in words[1:])
    if program == "sed":
        return not any(word.startswith("-") and "i" in word for word in words[1:])
    return _USUAL.fullmatch(program) is not None


def depends_on_owners(text: str, root: str, *, is_mixed: bool, is_root: bool) -> bool:
    """Return whether the command with this text meets files of other users, and depends on that.

    `root` is the absolute path of the tree. `is_mixed`: the tree has files of other users or
    groups. `is_root`: the user is root, as whom a job finds the owner of most other files right.
    """
    if is_root and not is_mixed:
        return False
    patterns = _SHOWS_OR_KEEPS if is_mixed else _SHOWS
    if not any(name in text and pattern.search(text) for name, pattern in patterns.items()):
        return False
    return is_mixed or _names_outside(text, root)


def _names_outside(text: str, root: str) -> bool:
    """Return whether a word names a path outside the tree other than the program of a command."""
    for found in _PATH.finditer(text):
        path = found[0].rstrip("/") or "/"
        if any(is_inside(path, top) for top in (root, *_OWN_PLACES)):
            continue
        if not _COMMAND_FOLLOWS.search(text[max(found.start() - _LOOK_BACK, 0) : found.start()]):
            return True
    return False
