"""Test writes of local programs that come after the last judgement of a result."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import trio.testing

from termite.engine import look_calls
from termite.engine.errors import FsError, ResultRefused, Retryable
from termite.engine.tree import disk_calls, late_writes, tree_disk
from termite.engine.tree.master_tree import MasterTree
from tests.edge.engine.tree.test_reconciliation import Writing
from tests.edge.engine.tree.test_redo import Calls, new_master
from tests.edge.engine.tree.tree_jobs import agrees_with_the_disk, digest_of, serve, staged_names, tree_path

FIRST, JOB = b"first\n", b"first\njob\n"


def before_the_rename(monkeypatch: pytest.MonkeyPatch, name: bytes, act: Callable[[], None]) -> None:
    """Let `act` happen when the master is about to rename a result to `name`."""

    def rename(source: bytes, target: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if target == name:
            act()
        os.rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(disk_calls, "rename", rename)


def append(path: Path, words: bytes) -> None:
    with path.open("ab") as log:
        log.write(words)


async def job_on_log(home: MasterTree, root: Path) -> Writing:
    (root / "log").write_bytes(FIRST)
    await serve(home, root)
    return Writing(home, root).rewrite("log", FIRST, JOB)


@pytest.mark.parametrize("is_judged", [True, False])
async def test_a_line_that_is_appended_just_before_the_rename_stays(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch, is_judged: bool
) -> None:
    job = await job_on_log(home, root)
    early = b"early\n" if is_judged else b""
    append(root / "log", early)
    before_the_rename(monkeypatch, b"log", lambda: append(root / "log", b"late\n"))
    published = await job.end()
    assert (root / "log").read_bytes() == FIRST + early + b"job\nlate\n"
    assert published.conflicts == ()
    assert await agrees_with_the_disk(home, root)
    assert staged_names(root) == []


async def test_a_program_that_has_opened_the_file_before_the_rename_may_finish(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await job_on_log(home, root)
    timers: list[threading.Timer] = []

    def begin() -> None:
        fd = os.open(root / "log", os.O_WRONLY | os.O_APPEND)

        def finish() -> None:
            os.write(fd, b"late\n")
            os.close(fd)

        timers.append(threading.Timer(0.1, finish))
        timers[0].start()

    before_the_rename(monkeypatch, b"log", begin)
    await job.end()
    timers[0].join()
    assert (root / "log").read_bytes() == JOB + b"late\n"


@pytest.mark.logs("late-write-lost")
async def test_another_late_write_is_said(home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await job_on_log(home, root)

    def edit() -> None:
        (root / "log").write_bytes(b"an editor's\n")

    before_the_rename(monkeypatch, b"log", edit)
    published = await job.end()
    assert published.conflicts == (tree_path(root / "log"),)
    assert (root / "log").read_bytes() == JOB


@pytest.mark.logs("late-write-lost")
async def test_a_name_that_the_old_file_gets_late_is_said(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await job_on_log(home, root)
    before_the_rename(monkeypatch, b"log", lambda: os.link(root / "log", root / "name"))
    published = await job.end()
    assert published.conflicts == (tree_path(root / "log"),)
    assert ((root / "log").read_bytes(), (root / "name").read_bytes()) == (JOB, FIRST)


@pytest.mark.parametrize("error", [errno.EIO, errno.EMFILE, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("times", [1, pytest.param(10**6, marks=pytest.mark.logs("late-write-lost"))])
async def test_a_look_that_fails_does_not_say_that_the_old_file_is_gone(
    home: MasterTree,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    error: int,
    times: int,
) -> None:
    """The file is changed in place, and stays where it is. Its tail must not come twice."""
    (root / "log").write_bytes(FIRST)
    status, left = tree_disk.Disk.status, [times]

    def look(self: tree_disk.Disk, path: bytes) -> os.stat_result:
        if path.endswith(b"log") and left[0]:
            left[0] -= 1
            raise OSError(error, os.strerror(error))
        return status(self, path)

    late = late_writes.LateWrites(home._disk)
    try:
        fd = os.open(root / "log", os.O_RDONLY)
        st = os.fstat(fd)
        begin = digest_of(FIRST)
        old = late_writes.OldFile(fd, st.st_size, st.st_mtime_ns, begin, st.st_nlink, st.st_ctime_ns)
        late.keep(tree_path(root / "log"), old)
        append(root / "log", b"late\n")
        monkeypatch.setattr(tree_disk.Disk, "status", look)
        lost = await late.rescue()
    finally:
        late.close()
    assert (root / "log").read_bytes() == FIRST + b"late\n"
    assert lost == (() if times == 1 else (tree_path(root / "log"),)), "nobody can say: the user is told"


async def test_descriptors_of_old_files_are_few_and_closed(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_writes, "KEPT_FILES", 2)
    for name in "abcd":
        (root / name).write_bytes(b"5")
    await serve(home, root)
    job = Writing(home, root)
    for name in "abcd":
        job.rewrite(name, b"5", b"6")
    before = len(os.listdir("/proc/self/fd"))
    most: list[int] = []
    before_the_rename(monkeypatch, b"d", lambda: most.append(len(os.listdir("/proc/self/fd"))))
    await job.end()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert all((root / name).read_bytes() == b"6" for name in "abcd")


async def test_a_file_that_cannot_be_looked_at_is_not_replaced_unseen(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may be writing to it."""
    job = await job_on_log(home, root)
    real, failures = tree_disk.Disk.open_file, [OSError(errno.EMFILE, os.strerror(errno.EMFILE))]

    def open_file(self: tree_disk.Disk, path: bytes) -> int:
        if failures and path.endswith(b"/log"):
            raise failures.pop()
        return real(self, path)

    monkeypatch.setattr(tree_disk.Disk, "open_file", open_file)
    with pytest.raises(Retryable):
        await job.end()
    assert (root / "log").read_bytes() == FIRST
    assert staged_names(root) == []


@pytest.mark.parametrize(("module", "error"), [(look_calls, errno.EIO), (disk_calls, errno.ENOSPC)])
async def test_whichever_call_fails_no_line_is_lost_unsaid(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
    module: ModuleType,
    error: int,
) -> None:
    root, waiting = tmp_path, [b""]

    def append_once() -> None:
        while waiting:
            append(root / "log", waiting.pop())

    before_the_rename(monkeypatch, b"log", append_once)
    calls = Calls(monkeypatch, module)
    number, refused, said = 0, 0, 0
    is_reached = True
    while is_reached:
        number += 1
        root = tmp_path / f"tree{number}"
        root.mkdir()
        home = new_master(root)
        job = await job_on_log(home, root)
        append(root / "log", b"early\n")
        waiting = [b"late\n"]
        descriptors = len(os.listdir("/proc/self/fd"))
        calls.arm(number, error)
        try:
            published = await job.end()
        except (FsError, ResultRefused, Retryable):
            refused += 1
            assert (root / "log").read_bytes() == FIRST + b"early\n", number
        else:
            said += bool(published.conflicts)
            late = b"" if published.conflicts else b"late\n"
            assert (root / "log").read_bytes() == FIRST + b"early\njob\n" + late, number
            assert ("late-write-lost" in caplog.text) is bool(published.conflicts), number
        caplog.clear()
        is_reached = calls.is_reached
        calls.arm(0)
        assert len(os.listdir("/proc/self/fd")) == descriptors, number
        home.close()
    assert refused > 5 and (said > 1 or module is disk_calls)
