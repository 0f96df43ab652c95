"""Watch whether a thread of a job waits for a pipe, and how many bytes it asks for.

A pipe does not say whether anybody waits for it. Therefore the watcher reads in /proc which system
call each thread of the job is blocked in. It blocks, because reading the memory of a thread may
wait for our own mount; its caller runs it in a thread.
"""

import itertools
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from termite.fuse.stdin.logic.blocked_calls import (
    BlockedCall,
    UnknownArchitecture,
    parse_epoll,
    parse_polled,
    parse_select_set,
    parse_syscall,
    parse_vectors,
    polled_array,
    select_set,
    vector_array,
)

PEEKED_BYTES = 4096  # shown to a program that polls: as much as such programs read next
MAX_EPOLL_DEPTH = 5  # the kernel allows no deeper nesting
HIDDEN_S = 0.1  # each process is unreadable for a moment: when it becomes the job's user, and when it ends

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StdinDemand:
    """A demand of a job for its standard input.

    If `is_exact`, a read asks for `size` bytes. Otherwise a thread polls, or might, and `size` is
    how much it may be shown.
    """

    size: int
    is_exact: bool


class PipeWatcher:
    """A watcher of the pipe with the inode number `inode`, on a `machine` as uname names it."""

    def __init__(self, inode: int, machine: str) -> None:
        self._links = frozenset({f"pipe:[{inode}]"})
        self._machine = machine
        self._has_children = os.path.exists("/proc/thread-self/children")
        self._last = 0  # the thread that waited the last time; mostly the same one waits again
        self._hidden = 0  # a thread that cannot be read
        self._hidden_since_s = 0.0
        self._is_logged = False

    def find_demand(self, pid: int, now_s: float) -> StdinDemand | None:
        """Return the demand of the first waiting thread of `pid` and the processes below it.

        Return None if no thread waits. If a thread cannot be read for a while, it may wait: return
        a demand that is not exact. This blocks.
        """
        if not self._has_children:
            return self._assume_demand("this kernel has no /proc/PID/task/TID/children")
        hidden, reason = 0, ""
        for thread in itertools.chain([self._last] if self._last else [], _threads_below(pid)):
            try:
                if demand := self._demand_of(thread):
                    self._last = thread
                    return demand
            except (OSError, UnknownArchitecture) as error:
                hidden, reason = thread, str(error)
        if hidden != self._hidden:
            self._hidden, self._hidden_since_s = hidden, now_s
        return self._assume_demand(reason) if hidden and now_s - self._hidden_since_s > HIDDEN_S else None

    def _assume_demand(self, reason: str) -> StdinDemand:
        if not self._is_logged:
            self._is_logged = True
            log.info("stdin-fed-ahead reason=%r", reason)
        return StdinDemand(PEEKED_BYTES, is_exact=False)

    def _demand_of(self, thread: int) -> StdinDemand | None:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            call = parse_syscall(_proc_text(f"/proc/{thread}/syscall"), self._machine)
            if call is not None and (size := self._size(thread, call)):
                return StdinDemand(size, is_exact=call.kind in ("read", "readv", "splice", "tee"))
        return None

    def _size(self, thread: int, call: BlockedCall) -> int:
        """Return how many bytes the call asks for; 0 if it does not wait for the pipe."""
        match call.kind:
            case "read" | "tee":
                return call.arguments[2] if self._is_ours(thread, call.arguments[0]) else 0
            case "splice":
                return call.arguments[4] if self._is_ours(thread, call.arguments[0]) else 0
            case "readv":
                is_ours = self._is_ours(thread, call.arguments[0])
                return parse_vectors(_thread_memory(thread, *vector_array(call)), call) if is_ours else 0
            case "poll" | "poll again":
                fds = parse_polled(_thread_memory(thread, *polled_array(call)))
            case "select":
                fds = parse_select_set(_thread_memory(thread, *select_set(call)), call)
            case "epoll":
                fds = self._epoll_fds(thread, call.arguments[0], MAX_EPOLL_DEPTH)
            case "io_uring":
                fds = [0]
            case _:
                fds = []
        return PEEKED_BYTES if any(self._is_ours(thread, fd) for fd in fds) else 0

    def _epoll_fds(self, thread: int, fd: int, depth: int) -> list[int]:
        """Return the descriptors that an epoll waits for, also through epolls within it."""
        fds = parse_epoll(_proc_text(f"/proc/{thread}/fdinfo/{fd}"))
        if depth > 1:
            for inner in list(fds):
                if _descriptor_link(thread, inner) == "anon_inode:[eventpoll]":
                    fds += self._epoll_fds(thread, inner, depth - 1)
        return fds

    def _is_ours(self, thread: int, fd: int) -> bool:
        return _descriptor_link(thread, fd & 0xFFFFFFFF) in self._links


class TerminalWatcher(PipeWatcher):
    """A watcher of the terminals that a job got with its streams, on a `machine` as uname names it.

    A job has a devpts of its own, so these are the first ones in it.
    """

    def __init__(self, machine: str) -> None:
        super().__init__(0, machine)
        self._links = frozenset({"/dev/tty", "/dev/pts/0", "/dev/pts/1"})

    def is_waited_for(self, pid: int) -> bool:
        """Return whether a thread of `pid` or below certainly waits to read. This blocks."""
        for thread in _threads_below(pid):
            with suppress(OSError, UnknownArchitecture):  # nothing is certain then
                if self._demand_of(thread):
                    return True
        return False


def _threads_below(pid: int) -> Iterator[int]:
    """Yield the threads of this process and of all below it.

    No other process can have the pipe, because it has no name.
    """
    waiting = [pid]
    while waiting:
        process = waiting.pop()
        with suppress(FileNotFoundError, ProcessLookupError):
            for thread in os.listdir(f"/proc/{process}/task"):
                waiting += map(int, _proc_text(f"/proc/{process}/task/{thread}/children").split())
                yield int(thread)


def _descriptor_link(thread: int, fd: int) -> str:
    try:
        return os.readlink(f"/proc/{thread}/fd/{fd}")
    except FileNotFoundError:
        return ""


def _proc_text(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return file.read().decode("ascii", "replace")


def _thread_memory(thread: int, address: int, size: int) -> bytes:
    """Return `size` bytes of a thread's memory, or b"" if they cannot all be read."""
    if not size:
        return b""
    fd = os.open(f"/proc/{thread}/mem", os.O_RDONLY)
    try:
        memory = os.pread(fd, size, address)
        return memory if len(memory) == size else b""
    except OSError:  # the thread has ended, or its call names no memory
        return b""
    finally:
        os.close(fd)
