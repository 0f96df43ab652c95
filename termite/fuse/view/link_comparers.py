"""Say whether a command names a program that compares the inode numbers of files.

Such a program takes two names of one file for two files, if the job itself has made the second
name. Others do not notice, so that their commands stay on the worker.

`cp`, `mv` and `install` refuse to copy a file onto itself, and would empty it if they took both
names for two files. In a job, `mv` also copies a directory that it would only rename on the disk.
"""

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


def names_comparer(argv: Sequence[bytes]) -> bool:
    """Return whether the command names a program that compares inode numbers."""
    text = b" ".join(argv)
    if _COMPARERS.search(text):
        return True
    linker = _LINKERS.search(text)
    return _COMMON_COMPARERS.search(text, linker.start() if linker else 0) is not None
