"""Learn how a process of somebody else has ended, without being its parent.

Linux 6.15 keeps the exit of a process for the holders of its pidfd, from the moment in which its
parent has waited for it (PIDFD_INFO_EXIT in include/uapi/linux/pidfd.h). Older kernels refuse the
question, and then nobody but the parent can know.
"""

import errno
import fcntl
import struct

# struct pidfd_info: mask and cgroup, eleven ids, and the exit as wait(2) returns it.
_INFO = struct.Struct("<QQ11Ii")
_EXIT = 8  # PIDFD_INFO_EXIT
_GET_INFO = (3 << 30) | (_INFO.size << 16) | (0xFF << 8) | 11  # _IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)
_QUESTION = _INFO.pack(_EXIT, *[0] * 13)
_CANNOT = {errno.ENOTTY, errno.EINVAL}  # what older kernels say


class ExitUnknown(Exception):
    """An error: the kernel never tells the exit of this process. The caller goes on without it."""


def exit_of(pidfd: int) -> int | None:
    """Return the wait status of an ended process, or None if its parent has not waited for it yet.

    Raise ExitUnknown if the kernel cannot tell it.
    """
    answer = bytearray(_QUESTION)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, answer)
    except OSError as error:
        if error.errno in _CANNOT:
            raise ExitUnknown from None
        return None  # ESRCH: it is being reaped at this moment
    mask, *_, status = _INFO.unpack(answer)
    return int(status) if mask & _EXIT else None
