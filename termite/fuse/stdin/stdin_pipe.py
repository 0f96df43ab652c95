"""A job's standard input where it is a stream: a pipe that is filled when, and only when, the job waits for it.

Others may share the stream at home, so what the job does not ask for must stay there. A pipe says nothing of who waits
for it; so while it is empty we look, in /proc, at what the job's threads are blocked in. A read says how much it wants,
and just that is taken. Who polls says nothing: it is shown what one read would give (`peek`), which stays at home as
well, where that is possible, until the job has taken it.
"""

import array
import fcntl
import itertools
import logging
import math
import os
import platform
import termios
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from errno import EIO
from types import TracebackType
from typing import Self

import trio

from termite.engine.errors import FsError, Reason, Retryable, TermiteError
from termite.engine.wire.protocol.messages import ReadStdin, StdinBytes, StdinTaken
from termite.engine.wire.transport import Connection
from termite.fuse.running_jobs import RunningJob
from termite.fuse.stdin.logic.blocked_calls import (
    Call,
    Unknown,
    parse_epoll,
    parse_polled,
    parse_set,
    parse_syscall,
    parse_vectors,
    polled_array,
    read_set,
    vectors,
)

# How often it is looked whether somebody waits. A job that reads all the time is seen at once; one that computes for
# seconds costs twenty looks a second.
SHORTEST_S, LONGEST_S = 0.0005, 0.05
PEEKED_BYTES = 4096  # for who polls: what programs that poll then read
DEEPEST_EPOLL = 5  # the kernel allows no deeper nesting
HIDDEN_S = 0.1  # every process is unreadable for a moment: when it becomes the job's user, and when it ends

log = logging.getLogger(__name__)


class Stdins:
    """Asks the master for what its launchers read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def read(self, job: RunningJob, size: int, *, offset: int = -1, peek: bool = False) -> bytes:
        """As the message says. FsError where it cannot be read, or when the job is to die."""

        async def ask() -> bytes:
            reply = await self._connection.request(ReadStdin(job.number, size, offset, peek))
            if not isinstance(reply, StdinBytes):
                raise FsError(EIO)
            return reply.content

        return await job.wait(ask, limit_s=math.inf)

    async def tell_taken(self, job: RunningJob, taken: int) -> None:
        await self._connection.request(StdinTaken(job.number, taken))


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody waits for. `is_exact`: a read of that size; else somebody polls, or might."""

    size: int
    is_exact: bool


class StdinPipe:
    """The pipe of one job. `reader` is for the sandbox."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._capacity = fcntl.fcntl(self._writer, fcntl.F_GETPIPE_SZ)
        self._watcher = Watcher(os.fstat(self.reader).st_ino, platform.machine())
        self._written = 0
        self._peeked = 0  # of what is in the pipe

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.end()
        os.close(self.reader)

    @property
    def taken(self) -> int:
        """How much the job has read."""
        return self._written - self._left()

    async def feed(self, job: RunningJob, stdins: Stdins) -> None:
        """Until its end, or until cancelled. Where it cannot be read the job must not take that for its end: it runs
        once more."""
        try:
            await self._feed(job, stdins)
        except TermiteError as error:
            if not job.is_ending:
                reason = os.strerror(error.errno) if isinstance(error, FsError) else str(error)
                job.retry(Retryable(Reason.STDIN_UNREADABLE, reason))

    async def _feed(self, job: RunningJob, stdins: Stdins) -> None:
        pause_s = SHORTEST_S
        while True:
            await trio.sleep(pause_s)
            pause_s = min(1.5 * pause_s, LONGEST_S)
            left = self._left()
            wish = await self._wish(job.pid) if not left and job.pid else None
            if wish is not None:
                content = await stdins.read(job, min(wish.size, self._capacity), peek=not wish.is_exact)
                if not content:
                    self.end()
                    return
                await self._write(content)
                self._peeked = 0 if wish.is_exact else len(content)
                pause_s = SHORTEST_S
            elif left < self._peeked:  # who else reads there, at home, must not see it a second time
                self._peeked = left
                await stdins.tell_taken(job, self._written - left)

    async def _wish(self, pid: int) -> Wish | None:
        if fcntl.fcntl(self.reader, fcntl.F_GETFL) & os.O_NONBLOCK:
            return Wish(PEEKED_BYTES, is_exact=False)  # it may ask without ever being blocked
        # In a thread: the memory of a process may have to be read from its program, which is in our own mount.
        return await trio.to_thread.run_sync(self._watcher.wish, pid, trio.current_time(), abandon_on_cancel=True)

    async def _write(self, content: bytes) -> None:
        while content:
            try:
                written = os.write(self._writer, content)
                content = content[written:]
                self._written += written
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._writer)

    def _left(self) -> int:
        count = array.array("i", [0])
        fcntl.ioctl(self.reader, termios.FIONREAD, count)
        return count[0]

    def end(self) -> None:
        """Nothing more will come."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1


class Watcher:
    """Looks who waits for the pipe with this inode number."""

    def __init__(self, inode: int, machine: str) -> None:
        self._link = f"pipe:[{inode}]"
        self._machine = machine
        self._has_children = os.path.exists("/proc/thread-self/children")
        self._last = 0  # the thread that waited the last time; mostly it is the same again
        self._hidden = 0  # a thread that cannot be looked at
        self._hidden_since = 0.0
        self._is_said = False

    def wish(self, pid: int, now: float) -> Wish | None:
        """Of the first thread found waiting, among the processes below `pid`."""
        if not self._has_children:
            return self._wish_unseen("this kernel has no /proc/PID/task/TID/children")
        hidden, reason = 0, ""
        for thread in itertools.chain([self._last] if self._last else [], _threads(pid)):
            try:
                if wish := self._wish_of(thread):
                    self._last = thread
                    return wish
            except (OSError, Unknown) as error:
                hidden, reason = thread, str(error)
        if hidden != self._hidden:
            self._hidden, self._hidden_since = hidden, now
        return self._wish_unseen(reason) if hidden and now - self._hidden_since > HIDDEN_S else None

    def _wish_unseen(self, reason: str) -> Wish:
        """Somebody may wait, so it is shown what there is."""
        if not self._is_said:
            self._is_said = True
            log.info("stdin-fed-ahead reason=%r", reason)
        return Wish(PEEKED_BYTES, is_exact=False)

    def _wish_of(self, thread: int) -> Wish | None:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            call = parse_syscall(_text(f"/proc/{thread}/syscall"), self._machine)
            if call is not None and (size := self._size(thread, call)):
                return Wish(size, is_exact=call.kind in ("read", "readv", "splice", "tee"))
        return None

    def _size(self, thread: int, call: Call) -> int:
        match call.kind:
            case "read" | "tee":
                return call.arguments[2] if self._is_ours(thread, call.arguments[0]) else 0
            case "splice":
                return call.arguments[4] if self._is_ours(thread, call.arguments[0]) else 0
            case "readv":
                is_ours = self._is_ours(thread, call.arguments[0])
                return parse_vectors(_memory(thread, *vectors(call)), call) if is_ours else 0
            case "poll" | "poll again":
                fds = parse_polled(_memory(thread, *polled_array(call)))
            case "select":
                fds = parse_set(_memory(thread, *read_set(call)), call)
            case "epoll":
                fds = self._epoll_fds(thread, call.arguments[0], DEEPEST_EPOLL)
            case "io_uring":
                fds = [0]
            case _:
                fds = []
        return PEEKED_BYTES if any(self._is_ours(thread, fd) for fd in fds) else 0

    def _epoll_fds(self, thread: int, fd: int, depth: int) -> list[int]:
        fds = parse_epoll(_text(f"/proc/{thread}/fdinfo/{fd}"))
        if depth > 1:
            for inner in list(fds):
                if _link(thread, inner) == "anon_inode:[eventpoll]":
                    fds += self._epoll_fds(thread, inner, depth - 1)
        return fds

    def _is_ours(self, thread: int, fd: int) -> bool:
        return _link(thread, fd & 0xFFFFFFFF) == self._link


def _threads(pid: int) -> Iterator[int]:
    """Of this process and all below it. Only they can have the pipe: it has no name."""
    waiting = [pid]
    while waiting:
        process = waiting.pop()
        with suppress(FileNotFoundError, ProcessLookupError):
            for thread in os.listdir(f"/proc/{process}/task"):
                waiting += map(int, _text(f"/proc/{process}/task/{thread}/children").split())
                yield int(thread)


def _link(thread: int, fd: int) -> str:
    try:
        return os.readlink(f"/proc/{thread}/fd/{fd}")
    except FileNotFoundError:
        return ""


def _text(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return file.read().decode("ascii", "replace")


def _memory(thread: int, address: int, size: int) -> bytes:
    """Empty where there is none."""
    if not size:
        return b""
    fd = os.open(f"/proc/{thread}/mem", os.O_RDONLY)
    try:
        memory = os.pread(fd, size, address)
        return memory if len(memory) == size else b""
    except OSError:
        return b""
    finally:
        os.close(fd)
