"""Run commands on the master's machine, each in place of its launcher, with one slot per core.

A local command holds its slot while it waits for commands that it starts. Such nested commands do
not wait for a slot, because a few of them would otherwise deadlock. The slot belongs to the
launcher's pid, which is the command's pid too, and the command may execute a launcher again.
"""

import contextlib
import functools
import logging
import os
import select
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import trio

from termite.engine.launch.connection import Launcher
from termite.engine.loop.fd_watcher import FdWatcher
from termite.engine.loop.slot_numbers import SlotNumbers

STAT_BYTES = 1024  # of /proc/PID/stat: 52 numbers and a name of 64 bytes at most
MAX_ANCESTORS = 256  # more than any build has; it ends the walk if pids change under it

log = logging.getLogger(__name__)

OnEnd = Callable[[], None]
NO_SLOT = -1  # the number of the slot of a command that needs none


class RunWitness(Protocol):
    """A witness of one local run, for records."""

    def begin(self, slot: int) -> None:
        """Note that the launcher is told to execute the command, in the slot with this number."""

    def end(self, process: int) -> bool:
        """Note that the command has ended. Return True if the witness will close its pidfd."""

    def lose_sight(self) -> None:
        """Note that the command runs, but that its end cannot be noticed."""


class LocalSlots:
    """The slots for local commands, and the pids that hold them.

    `parent_of` returns the parent of a process, or 0 if it has none or is gone.
    The caller must give back every slot that it takes.
    """

    def __init__(self, count: int, parent_of: Callable[[int], int]) -> None:
        self.count = count
        self._free = trio.Semaphore(count)
        self._holders: Counter[int] = Counter()
        self._parent_of = parent_of

    async def take(self, pid: int) -> None:
        """Wait for a slot for the command of the launcher with this pid."""
        await self._free.acquire()
        self._holders[pid] += 1

    def take_nowait(self, pid: int, reserved: int = 0) -> bool:
        """Take a slot if more than `reserved` are free. Return False otherwise."""
        if self._free.value <= reserved:
            return False
        self._free.acquire_nowait()
        self._holders[pid] += 1
        return True

    def give_back(self, pid: int) -> None:
        """Give back one slot of this pid, because its command has ended."""
        self._holders[pid] -= 1
        if not self._holders[pid]:
            del self._holders[pid]
        self._free.release()

    def is_nested(self, pid: int) -> bool:
        """Return True if this process or one of its ancestors holds a slot."""
        for _ in range(MAX_ANCESTORS):
            if pid in self._holders:
                return True
            if not self._holders or pid <= 1:
                return False
            pid = self._parent_of(pid)
        return False

    @property
    def running(self) -> int:
        """The number of slots that are taken."""
        return self.count - self._free.value


class LocalRuns:
    """The local commands that run now. Their slots are given back when they end.

    If the launcher's process is not visible from the master (it is in a container), its end cannot
    be noticed. Its slot is then given back when the command starts.
    """

    def __init__(self, slots: LocalSlots, fd_watcher: FdWatcher) -> None:
        self.slots = slots
        self._fd_watcher = fd_watcher
        self._runs: dict[int, _LocalRun] = {}  # by pidfd
        self._numbers = SlotNumbers()

    async def start(self, launcher: Launcher, on_over: OnEnd | None = None, witness: RunWitness | None = None) -> None:
        """Wait for a slot, unless the command is nested, and let the launcher execute its command.

        `on_over` is called when the command has ended, or at once if its process is not visible.
        Raise LauncherGone if the launcher has closed the connection.
        """
        holds = not self.slots.is_nested(launcher.pid)
        if holds:
            await self.slots.take(launcher.pid)
        with self._watched(launcher, _process_of(launcher), holds=holds, on_over=on_over, witness=witness):
            await launcher.replace(recurse=False)

    def start_nowait(self, launcher: Launcher, witness: RunWitness | None = None) -> bool:
        """Start the command like `start`, but return False if it would have to wait."""
        holds = not self.slots.is_nested(launcher.pid)
        if holds and not self._take_nowait(launcher.pid):
            return False
        with self._watched(launcher, _process_of(launcher), holds=holds, witness=witness):
            launcher.replace_nowait(recurse=False)
        return True

    def start_if_idle(
        self, launcher: Launcher, reserved: int, on_end: OnEnd, witness: RunWitness | None = None
    ) -> bool:
        """Start the command only if more than `reserved` slots are free; return False otherwise.

        Nested commands take a slot too. They cannot deadlock, because a refused one goes to a
        worker. A launcher whose process is not visible is also refused: its slot could not be held.
        `on_end` is called when the command has ended.
        """
        process = _process_of(launcher)
        if process is None:
            return False
        if not self._take_nowait(launcher.pid, reserved):
            os.close(process)
            return False
        with self._watched(launcher, process, holds=True, on_end=on_end, witness=witness):
            launcher.replace_nowait(recurse=False)
        return True

    @property
    def running(self) -> int:
        """The number of commands that are known to run."""
        return len(self._runs)

    def end_ended(self) -> None:
        """End the runs whose commands have ended, also if the watcher has not reported that yet."""
        ended = select.poll()
        for process in self._runs:
            ended.register(process, select.POLLIN)
        for process, _ in ended.poll(0):
            self._end(self._runs[process], has_run=True)

    def _take_nowait(self, pid: int, reserved: int = 0) -> bool:
        """Take a slot that is free, or that belongs to a command which has just ended.

        A build tool may send its next command before the watcher has reported that end.
        """
        if self.slots.take_nowait(pid, reserved):
            return True
        self.end_ended()
        return self.slots.take_nowait(pid, reserved)

    @contextlib.contextmanager
    def _watched(
        self,
        launcher: Launcher,
        process: int | None,
        *,
        holds: bool,
        on_end: OnEnd | None = None,
        on_over: OnEnd | None = None,
        witness: RunWitness | None = None,
    ) -> Iterator[None]:
        """Watch for the command's end. The body must let the launcher execute the command.

        If the body fails, the slot is given back at once.
        """
        slot = self._numbers.take() if holds else NO_SLOT
        run = _LocalRun(launcher.pid if holds else None, slot, process, on_end, on_over, witness)
        try:
            if witness is not None:
                witness.begin(slot)
            if process is not None:
                self._runs[process] = run
                self._fd_watcher.watch(process, functools.partial(self._end, run, has_run=True))
            yield
        except BaseException:
            self._end(run, has_run=False)
            raise
        if process is None:
            if witness is not None:
                witness.lose_sight()
            self._end(run, has_run=False)

    def _end(self, run: "_LocalRun", *, has_run: bool) -> None:
        if run.is_over:  # the launcher died while its frame was sent, and both ends were noticed
            return
        run.is_over = True
        if run.process is not None:
            self._fd_watcher.unwatch(run.process)
            self._runs.pop(run.process, None)
            if not (has_run and run.witness is not None and run.witness.end(run.process)):
                os.close(run.process)
        if run.holder is not None:
            self._numbers.give_back(run.slot)
            self.slots.give_back(run.holder)
        if has_run and run.on_end is not None:
            run.on_end()
        if run.on_over is not None:
            run.on_over()


@dataclass(slots=True)
class _LocalRun:
    """One local command.

    `holder` is the pid that holds a slot, or None; `slot` is its number. `process` is a pidfd, or
    None if the process is not visible. `on_end` is called only if the command has run, and
    `on_over` in any case.
    """

    holder: int | None
    slot: int
    process: int | None
    on_end: OnEnd | None
    on_over: OnEnd | None
    witness: RunWitness | None
    is_over: bool = False


def parent_of(pid: int) -> int:
    """Return the parent of a process on this machine, or 0 if the process is gone."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        stat = os.read(fd, STAT_BYTES)
    except OSError:
        return 0
    finally:
        os.close(fd)
    # The name in parentheses may contain any byte, even spaces and parentheses.
    return int(stat.rpartition(b")")[2].split()[1])


def _process_of(launcher: Launcher) -> int | None:
    """Return a pidfd of the launcher, which stays valid for the command that it executes.

    Return None if the process is not visible from the master, or if no descriptor is left.
    """
    try:
        return os.pidfd_open(launcher.pid)
    except OSError as error:
        log.debug("launcher-invisible pid=%d reason=%s", launcher.pid, error.strerror)
        return None
