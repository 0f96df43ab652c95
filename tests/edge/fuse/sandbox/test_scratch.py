"""Scratch directories are removed, whatever a job has left in them."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.engine.host.native_programs import native_program
from termite.fuse import mirror_calls
from termite.fuse.sandbox.scratch import FULL_BYTES, LOW_BYTES, Scratch


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    scratch = Scratch(native_program("termite-sandbox"), tmp_path)
    yield scratch
    scratch.close()


def remove(scratch: Scratch, path: Path) -> None:
    scratch.remove_later(path)
    scratch.clear_up()
    scratch.close()


def test_a_job_gets_the_three_empty_directories_that_the_sandbox_wants(scratch: Scratch, tmp_path: Path) -> None:
    assert scratch.make_job_directory().parent == tmp_path
    assert sorted(os.listdir(scratch.make_job_directory())) == ["root", "upper", "work"]


def test_each_job_gets_its_own(scratch: Scratch) -> None:
    first = scratch.make_job_directory()
    (first / "upper" / "old").touch()
    second = scratch.make_job_directory()
    assert os.listdir(second / "upper") == []
    assert os.listdir(first / "upper") == ["old"], "removed here, where that may never end"


def test_files_directories_links_and_pipes_go(scratch: Scratch, tmp_path: Path) -> None:
    made = scratch.make_job_directory()
    upper = made / "upper"
    (upper / "a" / "b").mkdir(parents=True)
    (upper / "a" / "b" / "file").touch()
    (upper / "link").symlink_to("a")
    os.mkfifo(upper / "fifo")
    remove(scratch, made)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mode", [0o000, 0o500, 0o111])
def test_modes_are_no_protection(scratch: Scratch, tmp_path: Path, mode: int) -> None:
    made = scratch.make_job_directory()
    closed = made / "upper" / "closed"
    (closed / "inner").mkdir(parents=True)
    (closed / "inner" / "file").touch(mode=0o000)
    (closed / "inner").chmod(mode)
    closed.chmod(mode)
    remove(scratch, made)
    assert os.listdir(tmp_path) == []


def test_a_tree_deeper_than_any_path_goes(scratch: Scratch, tmp_path: Path) -> None:
    here = os.getcwd()
    made = scratch.make_job_directory()
    os.chdir(made / "upper")
    try:
        for _ in range(90):  # far beyond PATH_MAX
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
    finally:
        os.chdir(here)
    remove(scratch, made)
    assert os.listdir(tmp_path) == []


def test_a_symlink_to_elsewhere_is_not_followed(scratch: Scratch, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    made = scratch.make_job_directory()
    (made / "upper" / "link").symlink_to(precious)
    remove(scratch, made)
    assert os.listdir(precious) == ["file"]


def test_many_files_of_many_jobs_go(scratch: Scratch, tmp_path: Path) -> None:
    kept = scratch.make_job_directory()
    for number in range(600):
        made = scratch.make_job_directory()
        (made / "upper" / str(number)).touch()
        scratch.remove_later(made)
    scratch.clear_up()
    scratch.close()
    assert os.listdir(tmp_path) == [kept.name], "only what is not wanted goes"


def test_what_is_gone_already_or_cannot_go_stops_nothing(scratch: Scratch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to("home")
    for path in (
        tmp_path / "nowhere",
        tmp_path / ("x" * 300),
        tmp_path / "file",
        tmp_path / "link",
        scratch.make_job_directory(),
    ):
        scratch.remove_later(path)
    scratch.clear_up()
    scratch.close()
    assert os.listdir(tmp_path) == ["home"]


@pytest.mark.logs("scratch-remover-died")
def test_a_remover_that_was_killed_is_started_again(scratch: Scratch, tmp_path: Path) -> None:
    remove(scratch, scratch.make_job_directory())
    scratch.remove_later(scratch.make_job_directory())
    scratch.clear_up()
    os.kill(scratch.remover_pid, signal.SIGKILL)
    os.waitpid(scratch.remover_pid, 0)
    scratch.remove_later(scratch.make_job_directory())
    scratch.clear_up()  # finds out
    scratch.clear_up()
    scratch.close()
    assert "9-3" not in os.listdir(tmp_path)


def test_room_is_known(scratch: Scratch) -> None:
    assert not scratch.is_full()


@pytest.mark.parametrize(
    ("blocks", "inodes", "is_full", "is_low"),
    [
        (0, 1000, True, True),
        (1000, 1000, False, True),
        (1_000_000, 1000, False, False),
        (1_000_000, 3, True, True),
    ],
)
def test_a_moment_of_little_space_is_remembered(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch, blocks: int, inodes: int, is_full: bool, is_low: bool
) -> None:
    lots = os.statvfs_result((4096, 4096, 10**6, 10**6, 10**6, 10**6, 10**6, 10**6, 0, 255))
    now = os.statvfs_result((4096, 4096, 10**6, blocks, blocks, 10**6, inodes, inodes, 0, 255))
    monkeypatch.setattr(mirror_calls, "statvfs", lambda path: now)
    assert scratch.is_full() is is_full
    scratch.check_space(5.0)
    monkeypatch.setattr(mirror_calls, "statvfs", lambda path: lots)
    scratch.check_space(6.0)
    assert not scratch.is_full()
    assert scratch.was_low_since(4.0) is is_low
    assert not scratch.was_low_since(5.5)


def test_free_inodes_that_become_few_are_looked_at_as_often(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    now = os.statvfs_result((4096, 4096, 10**9, 10**8, 10**8, 10**6, 20_000, 20_000, 0, 255))
    monkeypatch.setattr(mirror_calls, "statvfs", lambda path: now)
    assert scratch.check_space(0.0) == 0.02
    assert not scratch.was_low_since(0.0)


@pytest.mark.parametrize(("free_mb", "pause_s"), [(0, 0.02), (200, 0.02), (1152, 0.125), (100_000, 0.5)])
def test_the_less_space_there_is_the_sooner_it_is_looked_at_again(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch, free_mb: int, pause_s: float
) -> None:
    blocks = free_mb * 256
    now = os.statvfs_result((4096, 4096, 10**9, blocks, blocks, 10**6, 10**6, 10**6, 0, 255))
    monkeypatch.setattr(mirror_calls, "statvfs", lambda path: now)
    assert scratch.check_space(0.0) == pause_s


def test_space_that_ran_out_for_a_moment_is_remembered(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [FULL_BYTES, FULL_BYTES - 1, 2 * LOW_BYTES]
    monkeypatch.setattr(scratch, "_free_bytes", lambda: free.pop(0))
    for now_s in (1.0, 2.0, 3.0):
        scratch.check_space(now_s)
    assert scratch.was_full_since(2.0) and scratch.was_low_since(2.0)
    assert not scratch.was_full_since(2.5), "a job that began later has met nothing"


def test_only_a_job_that_may_have_filled_the_space_between_two_looks_is_suspect(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    little, much = LOW_BYTES - 1, 8 * LOW_BYTES
    assert scratch.may_have_filled(1.0, little, little)
    assert not scratch.may_have_filled(1.0, little, little - FULL_BYTES - 1)
    assert not scratch.may_have_filled(1.0, much, 10 * much), "it went through pipes, or into a file that was emptied"
    monkeypatch.setattr(scratch, "_free_bytes", lambda: little)
    scratch.check_space(3.0)
    assert scratch.may_have_filled(1.0, much, 10 * much)
    assert not scratch.may_have_filled(4.0, much, 10 * much)
