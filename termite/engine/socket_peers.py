"""Know the process at the other end of a unix socket, as the kernel knew it at the connection.

Every front end imports this module, so it imports nothing heavy.
"""

import socket
import struct
from collections.abc import Callable

_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7)


def peer_ids(getsockopt: Callable[[int, int, int], bytes]) -> tuple[int, int, int]:
    """Return the process, the user and the group at the other end. Raise OSError.

    `getsockopt` is the method of the connected socket.
    """
    pid, uid, gid = _CREDENTIALS.unpack(getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid, gid
