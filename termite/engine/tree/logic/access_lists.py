"""Compute the access control list and the mode of an entry that is made in a directory with one.

A default list replaces the umask, but a job's files come with a mode that the umask has cut.
Therefore a mode that is exactly 0666 or 0777 without the bits of the umask counts as not cut. A
command that sets this very mode cannot be told apart, and gets the rights of the list.

The format of the lists is that of linux/posix_acl_xattr.h.
"""

import stat
import struct

DEFAULT_LIST, ACCESS_LIST = "system.posix_acl_default", "system.posix_acl_access"
HEADER, ENTRY = struct.Struct("<I"), struct.Struct("<HHI")
USER_OBJ, GROUP_OBJ, MASK, OTHER = 0x01, 0x04, 0x10, 0x20
FILE_MODE, PROGRAM_MODE = 0o666, 0o777  # programs ask for these modes, and the umask cuts them


def granted(acl: bytes, mode: int) -> tuple[bytes, int]:
    """Return the list and the permission bits of an entry that is made with `mode`.

    `acl` is the default list of its directory. This is the kernel's posix_acl_create. The list is
    b"" if the bits say all.
    """
    entries = [ENTRY.unpack_from(acl, at) for at in range(HEADER.size, len(acl) - ENTRY.size + 1, ENTRY.size)]
    group = MASK if any(tag == MASK for tag, _, _ in entries) else GROUP_OBJ
    shifts = {USER_OBJ: 6, group: 3, OTHER: 0}
    bits = mode & ~0o777
    made = acl[: HEADER.size]
    for tag, allowed, id in entries:
        if tag in shifts:
            allowed &= mode >> shifts[tag]
            bits |= allowed << shifts[tag]
        made += ENTRY.pack(tag, allowed, id)
    return (made if len(entries) > len(shifts) else b""), bits


def requested_mode(mode: int, umask: int) -> int:
    """Return the mode for which a program has asked, if the umask has cut it to `mode`."""
    for asked in (PROGRAM_MODE,) if stat.S_ISDIR(mode) else (FILE_MODE, PROGRAM_MODE):
        if mode & 0o777 == asked & ~umask:
            return mode | asked
    return mode
