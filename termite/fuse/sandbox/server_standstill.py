"""Notice that the process that makes sandboxes stands still, and resume it.

It also answers the watched calls of jobs, which wait for it. The mirror sends it a probe from time
to time, and gets no answer: a message leaves the socket's queue when the process reads it.
"""

import contextlib
import fcntl
import logging
import math
import signal
import socket
import struct
import termios

from termite.engine.host.process_state import STOPPED, process_state

PROBE = b"\1"  # asks for no sandbox; native/sandbox/serve.c has the same
PROBE_S = 2.0  # between two of them
PATIENCE_S = 10.0  # then a process that still stands still is given up

log = logging.getLogger(__name__)


class ServerStandstill:
    """The watch over one such process, by its `pidfd` and the mirror's end of its `channel`."""

    def __init__(self, pid: int, pidfd: int, channel: socket.socket) -> None:
        self._pid = pid
        self._pidfd = pidfd
        self._channel = channel
        self._since_s: float | None = None
        self._probed_s = -math.inf
        self._is_logged = False

    def check(self, now_s: float) -> bool:
        """Return whether the process has stood still for too long. Call this while jobs run."""
        is_stopped = self.resume()
        if not is_stopped and not has_unread(self._channel):
            self._since_s, self._is_logged = None, False
            self._probe(now_s)
            return False
        if self._since_s is None:
            self._since_s = now_s
        return now_s - self._since_s >= PATIENCE_S

    def resume(self) -> bool:
        """Resume the process if a signal has stopped it, and return whether that was so."""
        if process_state(self._pid) not in STOPPED:
            return False
        if not self._is_logged:
            self._is_logged = True
            log.warning("spawner-stands-still pid=%d", self._pid)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)
        return True

    def _probe(self, now_s: float) -> None:
        if now_s < self._probed_s + PROBE_S:
            return
        self._probed_s = now_s
        with contextlib.suppress(OSError):  # it has died, which who wants a sandbox finds out
            self._channel.send(PROBE)


def has_unread(channel: socket.socket) -> bool:
    """Return whether the other end has not read all that was sent to it."""
    try:
        queued = fcntl.ioctl(channel.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return False
    return bool(struct.unpack("i", queued)[0])
