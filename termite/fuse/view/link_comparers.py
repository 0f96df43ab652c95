"""Say whether a command names a program that compares the inode numbers of files.

Such a program takes two names of one file for two files, if the job itself has made the second
name. Others do not notice, so that their commands stay on the worker.
"""

import re
from collections.abc import Sequence

_COMPARERS = re.compile(
    rb"(?<![\w.-])(?:bsdtar|cpio|debuild|dpkg-\w+|du|fakeroot|find|genisoimage|git|hardlink|mkfs[\w.]*|mksquashfs|"
    rb"mkisofs|ostree|pax|rdfind|rpmbuild|rsync|tar|xorriso|zip)(?![\w-])|\s-ef\s|samefile|st_ino|%i\b|\bls -\w*i"
)


def names_comparer(argv: Sequence[bytes]) -> bool:
    """Return whether a word of the command names a program that compares inode numbers."""
    return any(_COMPARERS.search(word) for word in argv)
