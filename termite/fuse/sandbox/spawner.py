"""Sandboxes that are made before their jobs are there.

The mirror is a large process, and a sandbox takes a while. So a small one, `termite-sandbox serve`, forks them, and
some are kept ready: a job then costs one message to the sandbox that has waited for it.
"""

import array
import contextlib
import logging
import os
import signal
import socket
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import trio

from termite.engine.errors import Reason, Retryable
from termite.engine.wire.protocol.records import parse_records

ANNOUNCEMENT_BYTES = 4096
ANSWER_S = 10.0  # for what takes a millisecond on an idle machine; then the process is stuck, and there is another one

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A sandbox without a job. `pid`: its first process; `channel`: where it waits, and will say how the job ended."""

    pid: int
    pidfd: int
    channel: socket.socket

    def close(self) -> None:
        """One that has no job ends now."""
        os.close(self.pidfd)
        self.channel.close()

    def is_there(self) -> bool:
        """Whether it still waits. Retryable with what it says where it could not get so far."""
        try:
            said = self.channel.recv(ANNOUNCEMENT_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        for _, reason in parse_records(said):
            raise Retryable(Reason.SANDBOX_FAILED, reason.decode(errors="replace"))
        return False


class Spawner:
    """Sandboxes of the program `binary`, with the network of this machine or with a loopback of their own.

    Its process is started when one is first wanted: it sees the mounts of that moment. It is started again if it dies;
    the sandboxes that it has made do not die with it.
    """

    def __init__(self, binary: Path, scratch: Path, *, network: bool) -> None:
        self._binary = binary
        self._scratch = scratch
        self._options = (b"--network",) if network else ()
        self._pid = 0
        self._socket: socket.socket | None = None
        self._asked = 0
        self._wanted = 1
        self._ready: deque[Waiting] = deque()
        self._turn = trio.Lock()

    async def check(self) -> None:
        """Wait until one is ready. Retryable where there will be none."""
        async with self._turn:
            await self._wait_for_one()

    async def take(self) -> Waiting:
        """One that is ready, or the next one. Retryable where there will be none."""
        for _ in range(len(self._ready) + 1):  # all that are ready may have been killed, and a new one not at once
            while not self._ready:
                await self.check()
            sandbox = self._ready.popleft()
            try:
                if sandbox.is_there():
                    return sandbox
            except Retryable:
                sandbox.close()
                raise
            log.warning("spawner-sandbox-died pid=%d", sandbox.pid)
            sandbox.close()
        raise Retryable(Reason.SANDBOX_FAILED, "the sandbox died before it had a job")

    def refill(self, count: int) -> None:
        """So many are to be ready, soon. They are made several at a time: its process is woken less often, and less
        often while a job wants that core. What fails here, `take` will find out."""
        self._wanted = max(count, 1)
        with contextlib.suppress(Retryable):
            if not self._turn.locked():  # else somebody waits at the socket for what it says
                self._hear()
            there = len(self._ready) + self._asked
            if there < count and there <= count // 2:
                self._ask(count - there)

    def close(self) -> None:
        """End the process, and what is ready."""
        while self._ready:
            self._ready.popleft().close()
        self._stop()

    async def _wait_for_one(self) -> None:
        starts = 0
        while not self._ready:
            if self._socket is None:
                starts += 1
                if starts > 2:
                    raise Retryable(Reason.SANDBOX_FAILED, "termite-sandbox has died")
            if not self._asked:
                self._ask(self._wanted)
            await self._wait_for_word()

    async def _wait_for_word(self) -> None:
        assert self._socket is not None
        with trio.move_on_after(ANSWER_S) as patience:
            await trio.lowlevel.wait_readable(self._socket)
        if patience.cancelled_caught:
            log.warning("spawner-stuck pid=%d", self._pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._stop()
        self._hear()

    def _ask(self, count: int) -> None:
        assert count > 0, "an empty message is the end"
        if self._socket is None:
            self._start()
        assert self._socket is not None
        try:
            self._socket.send(bytes(count))
        except OSError:
            # It has enough to do, or it has died: that is for `_hear`. Somebody may wait for this socket just now, and
            # would never hear of it if it were closed here.
            return
        self._asked += count

    def _hear(self) -> None:
        """Everything that it has said. One that could not be made is told to whoever listens."""
        while self._socket is not None:
            try:
                said, fds = _receive(self._socket)
            except BlockingIOError:
                return
            except OSError as error:
                log.info("spawner-lost reason=%s", error)
                said, fds = b"", []
            if not said:
                log.warning("spawner-died pid=%d", self._pid)
                self._stop()
                return
            self._asked -= 1
            records = {key: content.decode(errors="replace") for key, content in parse_records(said)}
            if "error" in records:
                raise Retryable(Reason.SANDBOX_FAILED, records["error"])
            if "unfiltered" in records:  # it says so once; its jobs run as they did before there was a filter
                log.warning("spawner-unfiltered pid=%d reason=%s", self._pid, records["unfiltered"])
            if len(fds) != 2:
                for fd in fds:
                    os.close(fd)
                raise Retryable(Reason.SANDBOX_FAILED, "too many open files")
            channel, pidfd = fds
            self._ready.append(Waiting(int(records["pid"]), pidfd, _seqpacket(channel)))

    def _start(self) -> None:
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise Retryable(Reason.SANDBOX_FAILED, error.strerror or "") from error
        try:
            self._pid = os.posix_spawn(
                self._binary,
                [b"termite-sandbox", b"serve", *self._options, b"%d" % theirs.fileno(), os.fsencode(self._scratch)],
                {},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), theirs.fileno()),  # only takes close-on-exec away
                ],
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores these two; a job must not
                setsid=True,  # a Ctrl-C for the worker is not for the job
            )
        except OSError as error:
            ours.close()
            raise Retryable(Reason.SANDBOX_FAILED, error.strerror or "") from error
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket = ours

    def _stop(self) -> None:
        """It ends when its socket is closed."""
        self._asked = 0
        if self._socket is None:
            return
        self._socket.close()
        self._socket = None
        with contextlib.suppress(ChildProcessError):  # the mirror, as pid 1, may have reaped it already
            os.waitpid(self._pid, 0)


def _receive(announcements: socket.socket) -> tuple[bytes, list[int]]:
    """A message and its descriptors. Not by socket.recv_fds, which drops its flags: all that is started later would
    inherit these."""
    room = socket.CMSG_LEN(2 * array.array("i").itemsize)
    said, controls, _, _ = announcements.recvmsg(ANNOUNCEMENT_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    return said, [fd for _, _, content in controls for fd in array.array("i", content)]


def _seqpacket(fd: int) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)  # all named: it need not ask the kernel
    channel.setblocking(False)
    return channel
