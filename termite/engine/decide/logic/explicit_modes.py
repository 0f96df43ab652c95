"""Find out by its text whether a command may give files a mode itself.

In a directory with a default access control list this makes a difference. The list replaces the
umask for a file that is made as usual, but not for a mode that a program sets. A script that calls
such a program is not recognized.
"""

import re

# They set the mode of their output. `ar` and `strip` set the usual one, which looks like that of
# the umask.
_PROGRAMS = "chmod|install|cp|ar|ranlib|strip|objcopy|tar|unzip|cpio|rsync|patch|git|svn|hg"
# A prefix is that of a cross compiler, as in arm-linux-gnueabi-ar.
_SETS_MODE = re.compile(rf"(?<![\w.-])(?:[\w.-]+-)?(?:{_PROGRAMS})(?![\w.-])|\bmkdir\b[^;&|\n]*\s-\w*m")


def may_set_modes(text: str) -> bool:
    """Return whether the command with this text names a program that sets modes."""
    return _SETS_MODE.search(text) is not None
