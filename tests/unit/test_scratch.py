"""Scratch directories go, whatever a job has left in them."""

import os
from pathlib import Path

import pytest
import trio

from termite.fuse.scratch import Scratch


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path)


def test_a_job_gets_the_three_empty_directories_that_the_sandbox_wants(scratch: Scratch, tmp_path: Path) -> None:
    assert scratch.make(7).parent == tmp_path
    assert sorted(os.listdir(scratch.make(8))) == ["root", "upper", "work"]


def test_a_job_that_is_tried_again_gets_other_directories(scratch: Scratch) -> None:
    first = scratch.make(7)
    (first / "upper" / "old").touch()
    second = scratch.make(7)
    assert os.listdir(second / "upper") == []
    assert os.listdir(first / "upper") == ["old"], "removed here, where that may never end"


def test_a_job_without_a_scratch_directory_can_be_discarded(scratch: Scratch, tmp_path: Path) -> None:
    scratch.discard(7)
    assert os.listdir(tmp_path) == []


def test_files_directories_links_and_pipes_go(scratch: Scratch, tmp_path: Path) -> None:
    made = scratch.make(7)
    upper = made / "upper"
    (upper / "a" / "b").mkdir(parents=True)
    (upper / "a" / "b" / "file").touch()
    (upper / "link").symlink_to("a")
    os.mkfifo(upper / "fifo")
    scratch.remove(made)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mode", [0o000, 0o500, 0o111])
def test_modes_are_no_protection(scratch: Scratch, tmp_path: Path, mode: int) -> None:
    made = scratch.make(7)
    closed = made / "upper" / "closed"
    (closed / "inner").mkdir(parents=True)
    (closed / "inner" / "file").touch(mode=0o000)
    (closed / "inner").chmod(mode)
    closed.chmod(mode)
    scratch.remove(made)
    assert os.listdir(tmp_path) == []


def test_a_tree_deeper_than_any_path_goes(scratch: Scratch, tmp_path: Path) -> None:
    here = os.getcwd()
    made = scratch.make(7)
    os.chdir(made / "upper")
    try:
        for _ in range(90):  # far beyond PATH_MAX
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
    finally:
        os.chdir(here)
    scratch.remove(made)
    assert os.listdir(tmp_path) == []


def test_a_symlink_to_elsewhere_is_not_followed(scratch: Scratch, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    made = scratch.make(7)
    (made / "upper" / "link").symlink_to(precious)
    scratch.remove(made)
    assert os.listdir(precious) == ["file"]


async def test_many_files_go_in_the_background(scratch: Scratch, tmp_path: Path) -> None:
    upper = scratch.make(7) / "upper"
    for number in range(600):
        (upper / str(number)).touch()
    scratch.discard(7)
    with trio.fail_after(10):
        while os.listdir(tmp_path):  # noqa: ASYNC110  # a thread that nobody waits for tells nobody
            await trio.sleep(0.001)


def test_room_is_known(scratch: Scratch) -> None:
    assert not scratch.is_full()
