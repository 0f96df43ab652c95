"""Notice a process of sandboxes that stands still, resume it, and end it in the end.

A job cannot stop its own pid 1: the kernel drops such signals from inside a pid namespace. A
stopped pid 1 was therefore stopped from outside, and by mistake. The command of a job is another
matter: it may stop itself, and then waits as it does on the master's machine.

The process that makes sandboxes also answers the watched calls of jobs, which wait for it.

A check of pid 1 costs two system calls and sends no message. The kernel acknowledges an order: it
leaves the socket's queue when the sandbox reads it. The other process gets a probe from time to
time, in the same way and without an answer.
"""

import contextlib
import fcntl
import logging
import math
import signal
import socket
import struct
import termios
from collections.abc import Callable
from typing import TYPE_CHECKING

from termite.engine.host.process_state import STOPPED, UNINTERRUPTIBLE, children_of, process_state

if TYPE_CHECKING:
    from termite.fuse.sandbox.spawner import WaitingSandbox

CHECK_S = 0.5  # between two checks; shorter jobs are never checked
SLOW_S = 2.0  # then it is logged
PATIENCE_S = 10.0  # then a process that still stands still is killed
PROBE = b"\1"  # asks for no sandbox; native/sandbox/serve.c has the same
PROBE_S = 2.0  # between two of them
MOST_UNCHECKED_S = 5.0  # between two checks of one standstill
DEATH_S = 5.0  # then a killed sandbox that has not died is left to the kernel (D state)

_STOPPED = "the sandbox was stopped by a signal"
_UNWATCHED = "the process that answers its watched calls was killed"

log = logging.getLogger(__name__)


class StandstillWatch:
    """The watch over the pid 1 of one job.

    `on_kill` is called before pid 1 is killed; it fails the job's requests. `give_up` is called if
    pid 1 does not die even then. `verdict` says why the sandbox was killed; "": it was not.
    """

    def __init__(
        self, job: int, sandbox: "WaitingSandbox", on_kill: Callable[[], None], give_up: Callable[[], None]
    ) -> None:
        self.verdict = ""
        self._job = job
        self._sandbox = sandbox
        self._on_kill = on_kill
        self._give_up = give_up
        self._since_s: float | None = None
        self._is_logged = False

    def check(self, now_s: float) -> None:
        """Look at pid 1, and resume or kill it if it stands still. Call this every CHECK_S.

        Kill it at once if nobody answers the watched calls of its job any more.
        """
        found = self._find()
        if not found and not self.verdict:
            self._since_s = None
            return
        if self._since_s is None:
            self._since_s, self._is_logged = now_s, False
        # On a busy machine a sandbox may just be slow to take its job.
        if not self._is_logged and (found == _STOPPED or now_s - self._since_s >= SLOW_S):
            self._is_logged = True
            log.warning("sandbox-stands-still job=%d pid=%d reason=%r", self._job, self._sandbox.pid, found)
        if self.verdict:
            if now_s - self._since_s >= PATIENCE_S + DEATH_S:
                self._give_up()
            return
        self._send(signal.SIGCONT)
        if found == _UNWATCHED:
            self._kill(found)
        elif now_s - self._since_s >= PATIENCE_S:
            self._kill(f"{found} for {PATIENCE_S:.0f} s")

    def _kill(self, verdict: str) -> None:
        self.verdict = verdict
        log.warning("sandbox-killed job=%d pid=%d reason=%r", self._job, self._sandbox.pid, verdict)
        self._on_kill()
        self._send(signal.SIGKILL)

    def _find(self) -> str:
        """Return in which way pid 1 stands still, or "" if it does not."""
        if self._sandbox.watcher.is_gone:
            return _UNWATCHED
        state = process_state(self._sandbox.pid)
        if state in STOPPED:
            return _STOPPED
        if has_unread(self._sandbox.channel):
            return "the sandbox has not taken its job"
        # Before its command and behind it, pid 1 needs no disk: nothing of a job is synced.
        if state == UNINTERRUPTIBLE and not children_of(self._sandbox.pid):
            return "the sandbox waits in the kernel, and no command of it runs"
        return ""

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._sandbox.pidfd, number)


class ServerStandstill:
    """The watch over the process that makes sandboxes.

    `pidfd` is that of the process, and `channel` is the mirror's end of its socket.
    """

    def __init__(self, pid: int, pidfd: int, channel: socket.socket) -> None:
        self._pid = pid
        self._pidfd = pidfd
        self._channel = channel
        self._since_s: float | None = None
        self._checked_s = self._probed_s = -math.inf
        self._is_logged = False

    def check(self, now_s: float) -> bool:
        """Return whether the process has stood still for too long. Call this while jobs run.

        Time without checks does not count: no job ran, or this process was frozen as well.
        """
        if now_s - self._checked_s > MOST_UNCHECKED_S:
            self._since_s = None
        self._checked_s = now_s
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
