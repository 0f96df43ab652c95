"""Have sandboxes made before their jobs come.

The mirror is a large process that forks slowly, and making a sandbox takes a while. Therefore a
small process, `termite-sandbox serve`, forks them, and some are kept ready. A job then costs one
message to the sandbox that has waited for it.
"""

import array
import contextlib
import logging
import os
import select
import signal
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from termite.engine.errors import Reason, Retryable
from termite.engine.model import TraceMode
from termite.engine.wire.protocol.fields import parse_fields
from termite.fuse import mirror_calls
from termite.fuse.sandbox.standstill import ServerStandstill

ANNOUNCEMENT_BYTES = 16 * 1024  # the longest text is that of a report, a path with an error
# A sandbox takes a millisecond on an idle machine. After this time its process is stuck, and is
# replaced.
SANDBOX_ANSWER_S = 10.0
RESUME_S = 1.0  # between two looks at a process from which somebody waits for a sandbox
DEATH_MS = 1000  # then a killed process that has not died is left to the kernel (D state)
MAX_STARTS = 2  # of the process for one job; if it dies each time, it will never work

TRACES = {TraceMode.OFF: (), TraceMode.EXACT: (b"--trace=exact",), TraceMode.COMPILER: (b"--trace=compiler",)}

Received = TypeVar("Received")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class CallWatcher:
    """The process that answers the watched calls of some sandboxes. Nobody can take its place."""

    is_gone: bool = False


@dataclass(frozen=True, slots=True)
class WaitingSandbox:
    """A sandbox without a job.

    `pid` and `pidfd` are of its first process. On `channel` it waits for an order, and later sends
    its report. `watcher` answers the watched calls of its job, unless pid 1 does so.
    """

    pid: int
    pidfd: int
    channel: socket.socket
    watcher: CallWatcher = field(default_factory=CallWatcher)

    def close(self) -> None:
        """Close its descriptors. The sandbox ends now if it has no job."""
        os.close(self.pidfd)
        self.channel.close()

    def is_waiting(self) -> bool:
        """Return whether it still waits for an order.

        Raises Retryable with its reason if it could not be set up; the caller closes it.
        """
        try:
            said = self.channel.recv(ANNOUNCEMENT_BYTES)
        except BlockingIOError:
            return True
        except OSError:  # it has ended
            return False
        for _, reason in parse_fields(said):
            raise Retryable(Reason.SANDBOX_FAILED, reason.decode(errors="replace"))
        return False


class Untraceable(Retryable):
    """An error for the sandboxes of a lease: no job can be traced on this machine."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.SANDBOX_FAILED, detail)


class Spawner:
    """The process that makes sandboxes, with the sandboxes that are ready.

    `binary` is its program. Without `options` the sandboxes have a loopback interface of their own.
    With `--network` they have the network of this machine. With `--private=PASTA` the program PASTA
    connects them to other machines. `--own=UID:GID[:GROUP]...` watches for calls that need the
    submitter's machine. The process is started when a sandbox is first wanted, so that it sees the
    mounts of that moment. If it dies it is started again. The kernel kills its sandboxes with it if
    it watches their calls; others live on.

    The jobs of a sandbox are traced as `trace` says. Their loopback interface is that of the
    sandboxes of `beside`, unless that process has died.
    """

    def __init__(
        self,
        binary: Path,
        scratch: Path,
        *options: bytes,
        trace: TraceMode = TraceMode.OFF,
        beside: "Spawner | None" = None,
    ) -> None:
        self._binary = binary
        self._scratch = scratch
        self._is_watching = trace is TraceMode.OFF and any(option.startswith(b"--own=") for option in options)
        self._watcher = CallWatcher()
        self._standstill: ServerStandstill | None = None  # while there is a socket
        self._options = (*TRACES[trace], *options)
        self._beside = beside
        self._pid = 0
        self._pidfd = -1  # of the process while there is a socket
        self._socket: socket.socket | None = None
        self._asked = 0
        self._wanted = 1
        self._ready: deque[WaitingSandbox] = deque()
        self._turn = trio.Lock()

    async def wait_ready(self) -> None:
        """Wait until a sandbox is ready. Raises Retryable if none can be made."""
        async with self._turn:
            await self._wait_for_one()

    async def take(self) -> WaitingSandbox:
        """Return a sandbox that is ready, or wait for the next one.

        Raises Retryable if none can be made; the job then runs elsewhere.
        """
        for _ in range(len(self._ready) + 1):  # all ready ones may have been killed
            while not self._ready:
                await self.wait_ready()
            sandbox = self._ready.popleft()
            try:
                if sandbox.is_waiting():
                    return sandbox
            except Retryable:
                sandbox.close()
                raise
            log.warning("spawner-sandbox-died pid=%d", sandbox.pid)
            sandbox.close()
        raise Retryable(Reason.SANDBOX_FAILED, "the sandbox died before it had a job")

    def refill(self, count: int) -> None:
        """Ask for more sandboxes until `count` are ready or asked for. Does not block.

        Several are asked for at a time. Therefore the process wakes up less often, and takes the
        core from a job less often. An error is ignored here, because `take` meets it again and
        raises it.
        """
        self._wanted = max(count, 1)
        with contextlib.suppress(Retryable):
            if not self._turn.locked():  # else another task waits at the socket for the announcements
                self._receive_announcements()
            there = len(self._ready) + self._asked
            if there < count and there <= count // 2:
                self._ask(count - there)

    def check(self, now_s: float) -> None:
        """Resume the process if it is stopped, and kill it if it stands still for long.

        Call this often while jobs run: they may wait for the answer to a watched call.
        """
        if self._standstill is None or self._turn.locked():  # locked: who waits for a sandbox does so
            return
        if self._standstill.check(now_s):
            self._give_up()

    def _give_up(self) -> None:
        log.warning("spawner-stuck pid=%d", self._pid)
        self._stop()

    def close(self) -> None:
        """End the process, and the sandboxes that are ready."""
        self._drop_ready()
        self._stop()

    def _drop_ready(self) -> None:
        while self._ready:
            self._ready.popleft().close()

    def open_network(self) -> int:
        """Return a descriptor of the sandboxes' network namespace, or -1 if there is none now."""
        if self._socket is None:
            return -1
        try:
            return mirror_calls.open(f"/proc/{self._pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # it is dying
            return -1

    async def _wait_for_one(self) -> None:
        starts = 0
        while not self._ready:
            if self._socket is None:
                starts += 1
                if starts > MAX_STARTS:
                    raise Retryable(Reason.SANDBOX_FAILED, "termite-sandbox has died")
            if not self._asked:
                self._ask(self._wanted)
            await self._wait_for_announcement()

    async def _wait_for_announcement(self) -> None:
        assert self._socket is not None and self._standstill is not None
        for _ in range(round(SANDBOX_ANSWER_S / RESUME_S)):
            with trio.move_on_after(RESUME_S) as pause:
                await trio.lowlevel.wait_readable(self._socket)
            if not pause.cancelled_caught:
                break
            self._standstill.resume()
        else:
            self._give_up()
        self._receive_announcements()

    def _ask(self, count: int) -> None:
        assert count > 0, "an empty message ends the process"
        if self._socket is None:
            self._start()
        assert self._socket is not None
        try:
            self._socket.send(bytes(count))
        except OSError:
            # Its queue is full, or it has died: `_receive_announcements` finds out. Do not close
            # the socket here, because a task that waits for it would never be woken.
            return
        self._asked += count

    def _receive_announcements(self) -> None:
        """Take in all announcements of the process: new sandboxes, and its own end.

        Raises Retryable with the reason if a sandbox could not be made.
        """
        while self._socket is not None:
            try:
                said, fds = receive_with_fds(self._socket)
            except BlockingIOError:
                return
            except OSError as error:
                log.info("spawner-lost reason=%s", error)
                said, fds = b"", []
            if not said:
                log.warning("spawner-died pid=%d", self._pid)
                self._stop()
                return
            fields = {key: content.decode(errors="replace") for key, content in parse_fields(said)}
            if "error" in fields and not self._asked:  # of the watched calls: its end follows
                log.warning("spawner-failed pid=%d reason=%r", self._pid, fields["error"])
                continue
            self._asked -= 1
            if "untraceable" in fields:
                self._stop()
                raise Untraceable(fields["untraceable"])
            if "error" in fields:
                raise Retryable(Reason.SANDBOX_FAILED, fields["error"])
            if "unfiltered" in fields:  # it says so once; jobs run without the filter
                log.warning("spawner-unfiltered pid=%d reason=%s", self._pid, fields["unfiltered"])
            if "unwatched" in fields:
                log.warning("spawner-unwatched pid=%d reason=%s", self._pid, fields["unwatched"])
                self._is_watching = False
            if len(fds) != 2:
                for fd in fds:
                    os.close(fd)
                raise Retryable(Reason.SANDBOX_FAILED, "too many open files")
            channel, pidfd = fds
            self._ready.append(WaitingSandbox(int(fields["pid"]), pidfd, _seqpacket(channel), self._watcher))

    def _start(self) -> None:
        try:
            ours, theirs = mirror_calls.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise Retryable(Reason.SANDBOX_FAILED, error.strerror or "") from error
        network = -1
        try:
            network = self._beside.open_network() if self._beside is not None else -1
            joined = (b"--network-of=%d" % network,) if network >= 0 else ()
            kept = [fd for fd in (theirs.fileno(), network) if fd >= 0]
            words = (*joined, *self._options, b"%d" % theirs.fileno(), os.fsencode(self._scratch))
            self._pid = os.posix_spawn(
                self._binary,
                [b"termite-sandbox", b"serve", *words],
                {},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in kept),  # only clears close-on-exec
                ],
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores these two; a job must not
                setsid=True,  # a Ctrl-C for the worker is not for the job
            )
            self._pidfd = os.pidfd_open(self._pid)
        except OSError as error:
            ours.close()
            raise Retryable(Reason.SANDBOX_FAILED, error.strerror or "") from error
        finally:
            theirs.close()
            if network >= 0:
                os.close(network)
        ours.setblocking(False)
        self._socket = ours
        self._watcher, self._standstill = CallWatcher(), ServerStandstill(self._pid, self._pidfd, ours)

    def _stop(self) -> None:
        """Kill the process, and reap it.

        It would end when its socket is closed, but not if somebody has stopped it. The wait is
        short: what a disk keeps from dying is reaped later, because this process is pid 1.
        """
        self._asked = 0
        if self._socket is None:
            return
        self._socket.close()
        self._socket = self._standstill = None
        if self._is_watching:
            self._watcher.is_gone = True
            self._drop_ready()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        death = select.poll()
        death.register(self._pidfd, select.POLLIN)
        death.poll(DEATH_MS)
        os.close(self._pidfd)
        with contextlib.suppress(ChildProcessError):  # the mirror, as pid 1, may have reaped it already
            os.waitpid(self._pid, os.WNOHANG)


def receive_last(receive: Callable[[], Received]) -> Received:
    """Return what `receive` reads from a socket whose other end may have gone.

    If the other end has gone without reading all that was sent to it, the kernel reports this once
    as ECONNRESET. The next call returns the messages that came before, and then the end.
    """
    try:
        return receive()
    except ConnectionResetError:
        return receive()


def receive_with_fds(channel: socket.socket) -> tuple[bytes, list[int]]:
    """Return a message of the sandbox program and its descriptors, of which there are two at most.

    Do not wait: raise BlockingIOError if there is none.
    socket.recv_fds would drop the flags, so that processes started later would inherit them.
    """
    room = socket.CMSG_LEN(2 * array.array("i").itemsize)
    receive = partial(channel.recvmsg, ANNOUNCEMENT_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    said, controls, _, _ = receive_last(receive)
    return said, [fd for _, _, content in controls for fd in array.array("i", content)]


def _seqpacket(fd: int) -> socket.socket:
    # With all arguments given, it does not ask the kernel for them.
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)
    channel.setblocking(False)
    return channel
