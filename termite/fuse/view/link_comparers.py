"""Say whether a command may run a program that compares the inode numbers of files.

Such a program takes two names of one file for two files, if the job itself has made the second
name. Some programs are known not to notice, so that commands of them alone stay on the worker. All
others may be such a program, or a script that calls one.

`cp`, `mv` and `install` refuse to copy a file onto itself, and would empty it if they took both
names for two files. In a job, `mv` also copies a directory that it would only rename on the disk.
"""

import enum
import re
from collections.abc import Sequence

_ARCHIVERS = rb"bsdcpio|bsdtar|cpio|dar|genisoimage|mke2fs|mkfs[\w.]*|mkisofs|mksquashfs|pax|rsync|star|tar|xorriso|zip"
_PACKERS = rb"debuild|dpkg-\w+|fakeroot|git|ostree|rpmbuild"
_FINDERS = rb"du|fdupes|find|hardlink|jdupes|rdfind"
_COMPARERS = re.compile(
    rb"(?<![\w.-])(?:" + rb"|".join((_ARCHIVERS, _PACKERS, _FINDERS)) + rb")(?![\w-])"
    rb"|\s-ef\s|%i\b|st_ino|samefile|sameopenfile|samestat|\.inode\(|tarfile|shutil"
)
# These are common. They count only behind the program that makes the link, if the command names it.
_COMMON_COMPARERS = re.compile(
    rb"(?<![\w.-])(?:"
    # `ln a b || cp a b` copies only if there is no link, and `cp -l` makes links.
    rb"(?<!\|\|)(?<!\|\|\s)(?:cp(?!\s+(?:-\S+\s+){0,9}-(?:[A-Za-z]*l|-link))|install|mv)(?![\w./-])"
    rb"|ls(?![\w./-])(?=[^;&|\n]{0,100}?\s-(?:[A-Za-z1]*i|-inode))"
    # Without a format, it shows the number. A format with %i is found above.
    rb"|stat(?![\w./-])(?![^;&|\n]{0,100}?\s-(?:[A-Za-z]*[cf]|-format|-printf|-file-system))"
    rb")"
)
_LINKERS = re.compile(
    rb"(?<![\w.-])(?:ln(?![\w./-])(?!\s+(?:-\S+\s+){0,9}-(?:[A-Za-z]*s|-symbolic))|link(?![\w./-])"
    rb"|cp\s+(?:-\S+\s+){0,9}-(?:[A-Za-z]*l|-link))"
)


# They compare no numbers, or only in the ways that stand above.
_HARMLESS = re.compile(
    # Compilers, with the prefix of a cross compiler, and binutils.
    rb"(?:[\w.]+-)*(?:gcc|g\+\+|cc|c\+\+|cpp|clang|clang\+\+|gfortran|as|ld|nasm|yasm|rustc|ar|ranlib|strip|objcopy|nm)"
    rb"(?:-[\d.]+)?"
    rb"|basename|bison|cat|chmod|cmp|cp|cut|date|diff|dirname|echo|egrep|expr|false|fgrep|flex|grep|head|id|install|link"
    rb"|ln|ls|mkdir|mkfifo|mktemp|mv|od|paste|printf|pwd|readlink|realpath|rm|rmdir|sed|seq|sha\d+sum|md5sum|sleep|sort"
    rb"|stat|tac|tail|tee|test|touch|tr|true|uname|uniq|unlink|wc|which"
    rb"|\[|!|\{|\}|:|break|case|cd|continue|do|done|elif|else|esac|exit|export|fi|for|if|in|read|set|shift|then"
    rb"|trap|umask|unset|until|wait|while"
)
_SHELLS = (b"sh", b"bash", b"dash")
_SEPARATORS = re.compile(rb"&&|\|\||[;&|\n()`]|\$\(")
_REDIRECTED = re.compile(rb"\d*[<>]+&?\s*[^\s<>]+|\d*>&\d")
_QUOTED = re.compile(rb"'[^']*'|\"(?:\\.|[^\"\\`$])*\"")
_ASSIGNED = re.compile(rb"[A-Za-z_]\w*=\S*")
_BEFORE_A_PROGRAM = (b"!", b"{", b"do", b"else", b"exec", b"if", b"elif", b"then", b"time", b"until", b"while")


class Comparers(enum.Enum):
    """The programs of a command that compare inode numbers."""

    NONE = "all programs are known, and do not"
    UNKNOWN = "a script, or a program that is not known"
    NAMED = "a program that does"


def comparers_of(argv: Sequence[bytes]) -> Comparers:
    """Return whether the command runs a program that compares inode numbers."""
    if names_comparer(argv):
        return Comparers.NAMED
    return Comparers.UNKNOWN if _runs_unknown(argv) else Comparers.NONE


def _runs_unknown(argv: Sequence[bytes]) -> bool:
    program = argv[0].rpartition(b"/")[2] if argv else b""
    if program not in _SHELLS:
        return not _HARMLESS.fullmatch(program)
    if len(argv) < 3 or not re.fullmatch(rb"-[a-z]*c", argv[1]):  # a script
        return True
    plain = _REDIRECTED.sub(b" ", _QUOTED.sub(b"Q", argv[2].replace(b"\\\n", b" ")))
    return not all(map(_is_harmless, _SEPARATORS.split(plain)))


def _is_harmless(command: bytes) -> bool:
    """Return whether one command of a shell runs a program that is known not to compare."""
    words = command.split()
    while words and (words[0] in _BEFORE_A_PROGRAM or _ASSIGNED.fullmatch(words[0])):
        del words[0]
    return not words or _HARMLESS.fullmatch(words[0].rpartition(b"/")[2]) is not None


def names_comparer(argv: Sequence[bytes]) -> bool:
    """Return whether the command names a program that compares inode numbers."""
    text = b" ".join(argv)
    if _COMPARERS.search(text):
        return True
    linker = _LINKERS.search(text)
    return _COMMON_COMPARERS.search(text, linker.start() if linker else 0) is not None
