"""Commands that launchers run here, as processes: their slots and descriptors come back."""

import gc
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
import trio
import trio.testing

from termite.engine.launch import connection as launcher_module
from termite.engine.launch.connection import Launcher, LauncherGone
from termite.engine.launch.local_runs import LocalRuns
from termite.engine.loop.fd_watcher import FdWatcher
from termite.engine.wire.protocol import launcher_frames
from tests.unit.engine.launch.test_local_runs import slots_of


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Home:
    """A machine with one core, and sleeping processes in place of launchers."""

    def __init__(self) -> None:
        gc.collect()  # leftovers of earlier tests: the error of a cancelled task keeps its frames
        self.fd_watcher = FdWatcher()
        self.runs = LocalRuns(slots_of(1), self.fd_watcher)
        self._descriptors = _descriptors()

    def assert_that_nothing_is_left(self) -> None:
        assert (self.runs.running, self.runs.slots.running) == (0, 0)
        assert _descriptors() == self._descriptors

    @contextmanager
    def launcher(self) -> "Iterator[tuple[Launcher, socket.socket, subprocess.Popen[bytes]]]":
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with (
            ours,
            theirs,
            subprocess.Popen(["sleep", "60"]) as process,
            patch.object(launcher_module, "_peer_pid", return_value=process.pid),
        ):
            try:
                yield Launcher(ours), theirs, process
            finally:
                process.kill()


@pytest.fixture
async def home(nursery: trio.Nursery) -> Home:
    home = Home()
    nursery.start_soon(home.fd_watcher.run)
    return home


async def test_the_slot_is_held_until_the_process_has_ended_whoever_waits(home: Home, nursery: trio.Nursery) -> None:
    with home.launcher() as (first, _, process), home.launcher() as (second, theirs, _):
        assert home.runs.start_nowait(first)
        assert not home.runs.start_nowait(second)
        nursery.start_soon(home.runs.start, second)
        await trio.testing.wait_all_tasks_blocked()
        assert (home.runs.running, home.runs.slots.running) == (1, 1)
        process.kill()
        theirs.setblocking(False)
        with trio.fail_after(10):
            await trio.lowlevel.wait_readable(theirs)
        assert theirs.recv(100) == launcher_frames.frame(launcher_frames.EXEC, b"recurse=0\0")
        await trio.testing.wait_all_tasks_blocked()
        assert (home.runs.running, home.runs.slots.running) == (1, 1)


async def test_a_launcher_that_is_gone_gives_its_slot_and_descriptor_back(home: Home) -> None:
    with home.launcher() as (launcher, theirs, _):
        theirs.close()
        with pytest.raises(LauncherGone):
            home.runs.start_nowait(launcher)
        with pytest.raises(LauncherGone):
            home.runs.start_if_idle(launcher, 0, lambda: None)
        with pytest.raises(LauncherGone):
            await home.runs.start(launcher)
    home.assert_that_nothing_is_left()


async def test_the_end_of_a_spare_run_is_told(home: Home) -> None:
    ended = trio.Event()
    with home.launcher() as (launcher, _, process), home.launcher() as (other, _, _):
        assert home.runs.start_if_idle(launcher, 0, ended.set)
        assert not home.runs.start_if_idle(other, 0, ended.set)
        assert not ended.is_set()
        process.kill()
        with trio.fail_after(10):
            await ended.wait()
    home.assert_that_nothing_is_left()


async def test_the_core_of_a_command_that_has_just_ended_is_free_for_the_one_that_follows_it(home: Home) -> None:
    ended = trio.Event()
    with home.launcher() as (launcher, _, process), home.launcher() as (other, _, _):
        assert home.runs.start_if_idle(launcher, 0, ended.set)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222  # it has been killed
        assert home.runs.start_if_idle(other, 0, lambda: None)  # nothing was awaited, so no task has run
        assert ended.is_set()
        assert home.runs.running == 1


async def test_a_launcher_that_dies_while_it_is_told_to_start_gives_back_once(home: Home) -> None:
    with home.launcher() as (launcher, theirs, process):
        with pytest.raises(BlockingIOError):
            while True:
                os.write(launcher.fd, b"x" * 65536)

        async def start() -> None:
            with pytest.raises(LauncherGone):
                await home.runs.start(launcher)

        async with trio.open_nursery() as starting:
            starting.start_soon(start)
            await trio.testing.wait_all_tasks_blocked()
            assert (home.runs.running, home.runs.slots.running) == (1, 1)
            process.kill()
            with trio.fail_after(10):
                await home.runs.slots.take(-1)
            home.runs.slots.give_back(-1)
            theirs.close()
    home.assert_that_nothing_is_left()


class SeenRun:
    """A witness that notes what it has seen, and keeps descriptors if it should."""

    def __init__(self, *, keeps: bool = False) -> None:
        self.seen: list[object] = []
        self.kept: list[int] = []
        self._keeps = keeps
        self.has_ended = trio.Event()

    def begin(self, slot: int) -> None:
        self.seen.append(slot)

    def end(self, process: int) -> bool:
        self.seen.append("end")
        self.has_ended.set()
        if self._keeps:
            self.kept.append(process)
        return self._keeps

    def lose_sight(self) -> None:
        self.seen.append("out of sight")


@pytest.mark.parametrize("keeps", [False, True])
async def test_a_witness_sees_the_slot_and_the_end_and_may_keep_the_descriptor(home: Home, keeps: bool) -> None:
    witness = SeenRun(keeps=keeps)
    with home.launcher() as (launcher, _, process):
        assert home.runs.start_nowait(launcher, witness)
        assert witness.seen == [0]
        process.kill()
        with trio.fail_after(10):
            await witness.has_ended.wait()
    assert witness.seen == [0, "end"]
    for process_fd in witness.kept:
        os.close(process_fd)
    home.assert_that_nothing_is_left()


async def test_a_witness_is_told_if_the_end_will_not_be_noticed(home: Home) -> None:
    witness = SeenRun()
    with home.launcher() as (launcher, _, _), patch.object(os, "pidfd_open", side_effect=ProcessLookupError(3, "")):
        assert home.runs.start_nowait(launcher, witness)
    assert witness.seen == [0, "out of sight"]
    home.assert_that_nothing_is_left()


async def test_a_witness_sees_no_end_of_what_never_began(home: Home) -> None:
    witness = SeenRun()
    with home.launcher() as (launcher, theirs, _):
        theirs.close()
        with pytest.raises(LauncherGone):
            home.runs.start_nowait(launcher, witness)
    assert witness.seen == [0]
    home.assert_that_nothing_is_left()
