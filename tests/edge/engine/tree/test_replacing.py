"""Test results that remove or replace entries, conflicts between jobs, and the times of results."""

import errno
import os
import resource
import stat
import time
from pathlib import Path

import pytest

from termite.engine.errors import FsError, Reason, RemoteProtocolError, Retryable
from termite.engine.model import Attr
from termite.engine.tree import disk_calls
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from tests.edge.engine.tree.tree_jobs import Job, agrees_with_the_disk, changed_since, serve, staged_names, tree_path

NS = 10**9


async def test_deleting_twice_is_deleting(home: MasterTree, root: Path) -> None:
    (root / "d" / "sub").mkdir(parents=True)
    (root / "d" / "sub" / "f").write_bytes(b"1")
    await serve(home, root, root / "d", root / "d" / "sub")
    await Job(home, root).delete("d/sub/f", "d/sub", "d", "never", "never/was").end()
    await Job(home, root).delete("d/sub/f", "d").end()
    assert not (root / "d").exists()
    assert (await changed_since(home, root, 0))["d"] is None
    assert home.drain() == home.number


async def test_what_another_job_put_into_a_deleted_directory_stays(home: MasterTree, root: Path) -> None:
    (root / "d" / "sub").mkdir(parents=True)
    (root / "d" / "sub" / "old").write_bytes(b"1")
    (root / "d" / "old").write_bytes(b"1")
    await serve(home, root, root / "d", root / "d" / "sub")
    deleting = Job(home, root).delete("d")
    await Job(home, root).write("d/sub/new", b"2").end()
    await deleting.end()
    assert sorted(os.listdir(root / "d")) == ["sub"]
    assert os.listdir(root / "d" / "sub") == ["new"]
    assert await agrees_with_the_disk(home, root / "d")
    assert await agrees_with_the_disk(home, root / "d" / "sub")


@pytest.mark.parametrize("names_it", [True, False])
async def test_a_file_takes_the_place_of_a_directory_and_back(home: MasterTree, root: Path, names_it: bool) -> None:
    (root / "x").mkdir()
    (root / "x" / "in").write_bytes(b"1")
    await serve(home, root, root / "x")
    job = Job(home, root)
    if names_it:
        job.delete("x")
    await job.write("x", b"file").end()
    assert (root / "x").read_bytes() == b"file"
    job = Job(home, root)
    if names_it:
        job.delete("x")
    await job.mkdir("x").write("x/again", b"2").end()
    assert os.listdir(root / "x") == ["again"]
    assert await agrees_with_the_disk(home, root / "x")
    assert home.drain() == home.number


async def test_a_directory_removed_and_made_again_is_empty_but_for_the_new(home: MasterTree, root: Path) -> None:
    (root / "d" / "sub").mkdir(parents=True)
    (root / "d" / "old").write_bytes(b"1")
    await serve(home, root, root / "d", root / "d" / "sub")
    await Job(home, root).delete("d").mkdir("d").write("d/new", b"2").end()
    assert os.listdir(root / "d") == ["new"]
    assert await agrees_with_the_disk(home, root / "d")
    (root / "d" / "later").write_bytes(b"3")
    home.drain()
    assert await agrees_with_the_disk(home, root / "d"), "the new directory is watched"


async def test_nothing_is_written_through_a_symlink(home: MasterTree, root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    os.symlink(tmp_path / "outside", root / "d")
    os.symlink(tmp_path / "outside" / "f", root / "f")
    await serve(home, root)
    with pytest.raises(FsError):
        await Job(home, root).write("d/f", b"1").end()
    with pytest.raises(FsError):
        await Job(home, root).change("l", Attr(stat.S_IFREG, 1, 1), link_to="d/f").end()
    await Job(home, root).delete("d/f").write("f", b"2").end()
    assert os.listdir(tmp_path / "outside") == []
    assert (root / "f").read_bytes() == b"2"


async def test_a_directory_that_becomes_a_symlink_with_entries_is_left_whole(home: MasterTree, root: Path) -> None:
    (root / "sub").mkdir()
    (root / "sub/kept").write_bytes(b"1")
    await serve(home, root, root / "sub")
    job = Job(home, root).delete("sub").change("sub", Attr(stat.S_IFLNK | 0o777, 4, 1, None, b"/etc"))
    with pytest.raises(RemoteProtocolError):
        await job.write("sub/passwd", b"root::0:0::/:").end()
    assert (root / "sub/kept").read_bytes() == b"1"


async def test_a_directory_that_the_job_made_over_a_symlink_takes_its_place(home: MasterTree, root: Path) -> None:
    os.symlink("/", root / "d")
    await serve(home, root)
    await Job(home, root).delete("d").mkdir("d").write("d/f", b"1").end()
    assert os.listdir(root / "d") == ["f"]
    assert not (root / "d").is_symlink()


async def test_a_read_only_directory_is_written_as_the_job_wrote_it(home: MasterTree, root: Path) -> None:
    await serve(home, root)
    await Job(home, root).mkdir("d", 0o555).write("d/f", b"1", 0o444).end()
    await Job(home, root).write("d/g", b"2").end()
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o555
    assert sorted(os.listdir(root / "d")) == ["f", "g"]
    await Job(home, root).delete("d").end()
    assert not (root / "d").exists()


async def test_a_full_disk_leaves_everything_as_it_was(home: MasterTree, root: Path) -> None:
    (root / "old").write_bytes(b"old")
    (root / "closed").mkdir(0o555)
    (root / "deleted").write_bytes(b"old")
    await serve(home, root)
    job = Job(home, root).mkdir("d").write("d/small", b"1").write("old", b"x" * 60_000).delete("deleted")
    job.write("closed/f", b"2")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(FsError):
            await job.end()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(os.listdir(root)) == [".termite-staging", "closed", "deleted", "old"]
    assert stat.S_IMODE((root / "closed").stat().st_mode) == 0o555
    assert (root / "old").read_bytes() == b"old"
    assert staged_names(root) == []
    assert home.number == 0


async def test_a_result_in_the_staging_directory_is_refused(home: MasterTree, root: Path) -> None:
    for name in (".termite-staging/x", ".termite-socket"):
        with pytest.raises(FsError):
            await Job(home, root).write(name, b"1").end()


async def test_names_need_not_be_text(home: MasterTree, root: Path) -> None:
    await serve(home, root)
    name = os.fsdecode(b"new\nline \xff\xfe")
    await Job(home, root).mkdir(name).write(name + "/x", b"1").end()
    assert (root / name / "x").read_bytes() == b"1"
    assert await agrees_with_the_disk(home, root / name)


async def test_two_jobs_that_write_one_path_are_named(home: MasterTree, root: Path) -> None:
    await serve(home, root)
    one, two = Job(home, root).write("f", b"one"), Job(home, root).write("f", b"two").write("g", b"mine")
    assert (await one.end()).conflicts == ()
    assert (await two.end()).conflicts == (tree_path(root / "f"),)
    assert (root / "f").read_bytes() == b"two"
    assert (await Job(home, root).write("f", b"three").end()).conflicts == ()


async def test_results_lie_between_what_was_there_and_what_comes_after(home: MasterTree, root: Path) -> None:
    await serve(home, root)
    for offset_ns in (0, -NS, NS):
        (root / "input").write_bytes(b"1")
        job = Job(home, root).write("first", b"%d" % offset_ns).write("second", b"%d" % offset_ns)
        await job.end(offset_ns)
        (root / "after").write_bytes(b"1")
        times = [(root / name).stat().st_mtime_ns for name in ("input", "first", "second", "after")]
        assert times == sorted(times)


async def test_a_directorys_time_is_not_set_back_by_a_job_that_was_slower(home: MasterTree, root: Path) -> None:
    (root / "d").mkdir()
    await serve(home, root, root / "d")
    slow = Job(home, root)
    slow.mkdir("d").write("d/slow", b"1")
    await Job(home, root).write("d/fast", b"1").end()
    (root / "d" / "local").write_bytes(b"1")
    before = (root / "d").stat().st_mtime_ns
    await slow.end()
    assert (root / "d").stat().st_mtime_ns == before


async def test_a_directory_that_only_lost_something_has_the_time_of_that(home: MasterTree, root: Path) -> None:
    (root / "d").mkdir()
    (root / "d" / "f").write_bytes(b"1")
    await serve(home, root, root / "d")
    job = Job(home, root).delete("d/f")
    when_ns = time.time_ns()
    while home.now_ns() <= when_ns:
        pass  # results are never newer than the file system's clock, which goes in ticks
    job.change("d", Attr(stat.S_IFDIR | 0o755, 0, when_ns), content=False)
    await job.end()
    assert (root / "d").stat().st_mtime_ns == when_ns
    await Job(home, root).change("d", Attr(stat.S_IFDIR | 0o711, 0, 8 * NS), content=False).end()
    assert (root / "d").stat().st_mtime_ns == 8 * NS
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o711
    assert await agrees_with_the_disk(home, root)


async def test_a_time_set_by_the_job_stays_for_directories_too(home: MasterTree, root: Path) -> None:
    await serve(home, root)
    await Job(home, root).mkdir("d", mtime_ns=7 * NS).write("d/f", b"1", mtime_ns=9 * 10**18).end()
    assert (root / "d").stat().st_mtime_ns == 7 * NS
    assert (root / "d" / "f").stat().st_mtime_ns == 9 * 10**18


def test_a_killed_masters_staging_is_cleared(root: Path) -> None:
    (root / ".termite-staging" / "7" / "deep").mkdir(parents=True)
    (root / ".termite-staging" / "3").write_bytes(b"half")
    home = MasterTree(TreeConfig(tree_path(root)))
    assert staged_names(root) == []
    home.close()


async def test_a_thousand_files_come_home_in_few_changesets(home: MasterTree, root: Path) -> None:
    await serve(home, root)
    watches = home.statistics()["watches"]
    job = Job(home, root)
    for d in range(10):
        job.mkdir(f"d{d}")
        for f in range(100):
            job.write(f"d{d}/{f}", b"%d" % f)
    number = (await job.end()).number
    assert number < 1000 / 20, "slices are not so small that each costs as much as its changes"
    assert home.drain() == number
    assert home.statistics()["watches"] == watches + 10


async def test_a_name_that_is_made_anew_with_the_same_content_is_another_file(home: MasterTree, root: Path) -> None:
    (root / "f").write_bytes(b"same")
    os.link(root / "f", root / "g")
    await serve(home, root)
    fd, _ = await home.open_file(tree_path(root / "f"), 4, (root / "f").stat().st_mtime_ns)
    os.close(fd)
    _, _, children = await home.directory(tree_path(root))
    assert children[b"f"].digest is not None, "the content is known to be the same"
    await Job(home, root).write("f", b"same", mtime_ns=NS).end()
    assert not (root / "f").samefile(root / "g")
    assert (root / "g").stat().st_nlink == 1
    assert await agrees_with_the_disk(home, root)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EPERM])
async def test_a_group_that_we_cannot_give_is_given_by_the_command_itself(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """In a user namespace chown(2) fails with EINVAL for each group but one."""

    def chown(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(disk_calls, "chown", chown)
    (root / "d").mkdir()
    (root / "d").chmod(0o2775)
    await serve(home, root, root / "d")
    with pytest.raises(Retryable) as caught:
        await Job(home, root).write("d/new", b"1").end()
    assert caught.value.reason is Reason.FOREIGN_IDS
    assert os.listdir(root / "d") == []
