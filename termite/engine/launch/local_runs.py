"""Commands that run on this machine, each in place of its launcher; and their slots, one per core.

A local command that starts further commands holds its slot while it waits for them, so these wait for none: otherwise a
few such commands would wait for each other for ever. The holder is the command itself, which has its launcher's pid and
may become a launcher again.
"""

import contextlib
import functools
import logging
import os
import select
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import trio

from termite.engine.launch.connection import Launcher
from termite.engine.loop.fd_watcher import FdWatcher

DEPTH = 256  # of ancestors; deeper nesting than any build has, and an end for a walk that would have none

log = logging.getLogger(__name__)

OnEnd = Callable[[], None]


class LocalSlots:
    """`parent_of` gives the parent of a process, 0 where it has none or is gone. What is taken must be given back."""

    def __init__(self, count: int, parent_of: Callable[[int], int]) -> None:
        self.count = count
        self._free = trio.Semaphore(count)
        self._holders: Counter[int] = Counter()
        self._parent_of = parent_of

    async def take(self, pid: int) -> None:
        """Wait for a slot for the command of the launcher with this pid."""
        await self._free.acquire()
        self._holders[pid] += 1

    def take_at_once(self, pid: int, reserved: int = 0) -> bool:
        """Take a slot that nobody waits for, if more than `reserved` are free."""
        if self._free.value <= reserved:
            return False
        self._free.acquire_nowait()
        self._holders[pid] += 1
        return True

    def give_back(self, pid: int) -> None:
        """The command has ended."""
        self._holders[pid] -= 1
        if not self._holders[pid]:
            del self._holders[pid]
        self._free.release()

    def is_nested(self, pid: int) -> bool:
        """Whether this command is part of one that has a slot."""
        for _ in range(DEPTH):
            if pid in self._holders:
                return True
            if not self._holders or pid <= 1:
                return False
            pid = self._parent_of(pid)
        return False

    @property
    def running(self) -> int:
        """How many slots are taken."""
        return self.count - self._free.value


class LocalRuns:
    """Starts commands, and gives their slots back when they have ended, which nobody need wait for.

    Where a launcher's process is not to be seen from here (it is in a container), its slot is given back at once.
    """

    def __init__(self, slots: LocalSlots, fd_watcher: FdWatcher) -> None:
        self.slots = slots
        self._fd_watcher = fd_watcher
        self._runs: dict[int, _LocalRun] = {}  # by pidfd

    async def start(self, launcher: Launcher) -> None:
        """When it is its turn."""
        holds = not self.slots.is_nested(launcher.pid)
        if holds:
            await self.slots.take(launcher.pid)
        with self._watched(launcher, _process_of(launcher), holds=holds):
            await launcher.replace(recurse=False)

    def start_at_once(self, launcher: Launcher) -> bool:
        """If nobody has to wait for that."""
        holds = not self.slots.is_nested(launcher.pid)
        if holds and not self._take_at_once(launcher.pid):
            return False
        with self._watched(launcher, _process_of(launcher), holds=holds):
            launcher.replace_at_once(recurse=False)
        return True

    def start_spare(self, launcher: Launcher, reserved: int, on_end: OnEnd) -> bool:
        """If more than `reserved` cores have nothing to do. Nested or not: who gets none need not wait.

        Nor does one start whose end nobody would see: they would be too many.
        """
        process = _process_of(launcher)
        if process is None:
            return False
        if not self._take_at_once(launcher.pid, reserved):
            os.close(process)
            return False
        with self._watched(launcher, process, holds=True, on_end=on_end):
            launcher.replace_at_once(recurse=False)
        return True

    @property
    def running(self) -> int:
        """How many commands are known to run."""
        return len(self._runs)

    def _take_at_once(self, pid: int, reserved: int = 0) -> bool:
        """A free slot, also that of a command which has just ended: who started it may be here with the next one before
        we are told."""
        if self.slots.take_at_once(pid, reserved):
            return True
        ended = select.poll()
        for process in self._runs:
            ended.register(process, select.POLLIN)
        for process, _ in ended.poll(0):
            self._end(self._runs[process], has_run=True)
        return self.slots.take_at_once(pid, reserved)

    @contextlib.contextmanager
    def _watched(
        self, launcher: Launcher, process: int | None, *, holds: bool, on_end: OnEnd | None = None
    ) -> Iterator[None]:
        """From here on its end counts, if within the launcher is replaced."""
        run = _LocalRun(launcher.pid if holds else None, process, on_end)
        try:
            if process is not None:
                self._runs[process] = run
                self._fd_watcher.watch(process, functools.partial(self._end, run, has_run=True))
            yield
        except BaseException:
            self._end(run, has_run=False)
            raise
        if process is None:
            self._end(run, has_run=False)

    def _end(self, run: "_LocalRun", *, has_run: bool) -> None:
        if run.is_over:  # its launcher has died while it was told to start
            return
        run.is_over = True
        if run.process is not None:
            self._fd_watcher.unwatch(run.process)
            self._runs.pop(run.process, None)
            os.close(run.process)
        if run.holder is not None:
            self.slots.give_back(run.holder)
        if has_run and run.on_end is not None:
            run.on_end()


@dataclass(slots=True)
class _LocalRun:
    """`holder` of a slot, `process`: a pidfd; each None where there is none."""

    holder: int | None
    process: int | None
    on_end: OnEnd | None
    is_over: bool = False


def parent_of(pid: int) -> int:
    """The parent of a process on this machine."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    # The name in parentheses may contain anything, spaces and parentheses too.
    return int(stat.rpartition(b")")[2].split()[1])


def _process_of(launcher: Launcher) -> int | None:
    """A pidfd of the launcher, and of the command that it becomes. None where it is not to be seen from here, or there
    is no descriptor left."""
    try:
        return os.pidfd_open(launcher.pid)
    except OSError as error:
        log.debug("launcher-invisible pid=%d reason=%s", launcher.pid, error.strerror)
        return None
