"""Read from the kernel whether bytes move on a connection, though no message is complete yet.

The figures are those of struct tcp_info in linux/tcp.h.
"""

import socket
import struct
from typing import NamedTuple

import trio

_INFO_BYTES = 148
_UNACKNOWLEDGED = struct.Struct("=24xI")  # tcpi_unacked, in packets
_COUNTS = struct.Struct("=120xQQ8xI")  # tcpi_bytes_acked, tcpi_bytes_received, tcpi_notsent_bytes


class LinkProgress(NamedTuple):
    """The bytes that the other machine has acknowledged and sent so far.

    `is_under_way` is True if it has not acknowledged everything.
    """

    acknowledged_bytes: int = 0
    received_bytes: int = 0
    is_under_way: bool = False

    def is_beyond(self, earlier: "LinkProgress") -> bool:
        """Return whether the link has moved bytes since `earlier`, and the peer is not at fault.

        The kernel of a machine acknowledges a few bytes even for a process that was stopped. Such
        bytes count only while others still wait.
        """
        has_taken = self.is_under_way and self.acknowledged_bytes > earlier.acknowledged_bytes
        return has_taken or self.received_bytes > earlier.received_bytes


def read_progress(connection: trio.socket.SocketType) -> LinkProgress:
    """Return the progress of a TCP connection. Other sockets, and closed ones, never progress."""
    try:
        text = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return LinkProgress()
    if len(text) < _INFO_BYTES:  # an older kernel
        return LinkProgress()
    acknowledged, received, unsent = _COUNTS.unpack_from(text)
    return LinkProgress(acknowledged, received, bool(unsent or _UNACKNOWLEDGED.unpack_from(text)[0]))
