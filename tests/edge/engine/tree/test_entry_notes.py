"""Test which private files are sealed because a symlink of the tree leads to them."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from termite.engine import look_calls
from termite.engine.fleet.lease import Lease
from termite.engine.master.mirror_requests import MirrorRequests
from termite.engine.model import Attr
from termite.engine.tree.logic import visibility
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from termite.engine.tree.tools import entry_notes
from termite.engine.tree.tools.programs import way_to
from termite.engine.tree.tools.slow_mounts import SlowMounts
from termite.engine.wire.protocol.messages import GetDirectory
from tests.edge.engine.tree.tree_jobs import serve, tree_path


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a private directory, which may have sealed files though it is below /tmp."""
    monkeypatch.setattr(visibility, "temporary_above", lambda path: b"")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    return closed


def private(closed: Path, name: str = "tool", mode: int = 0o755) -> Path:
    path = closed / name
    path.write_text("secret")
    path.chmod(mode)
    return path


async def names_in(home: MasterTree, directory: Path) -> dict[bytes, Attr]:
    return (await home.directory(tree_path(directory)))[2]


async def is_sealed(home: MasterTree, path: Path) -> bool:
    try:
        return os.fsencode(path.name) in await names_in(home, path.parent)
    except OSError:
        return False


@pytest.mark.parametrize("target", ["../closed/tool", "./../closed/tool", "a/../../closed/tool", "/"])
async def test_every_text_of_a_symlink_that_leads_out_is_followed(
    home: MasterTree, root: Path, closed: Path, target: str
) -> None:
    (root / "a").mkdir()
    file = private(closed)
    (root / "link").symlink_to(file if target == "/" else target)
    await serve(home, root)
    assert home.notes.seals == 1
    assert await is_sealed(home, file)


async def test_only_directories_with_such_a_symlink_may_have_misled_a_job(
    home: MasterTree, root: Path, closed: Path
) -> None:
    file = private(closed)
    for name in ("one", "two", "other"):
        (root / name).mkdir()
    (root / "one" / "link").symlink_to(file)
    (root / "two" / "link").symlink_to("../../closed/tool")
    await serve(home, root / "one", root / "two", root / "other")
    newest = [home.notes.newest_seal(tree_path(root / name)) for name in ("one", "two", "other", "")]
    assert (home.notes.seals, newest) == (1, [1, 1, 0, 0])
    private(closed, "new")
    (root / "other" / "link").symlink_to(closed / "new")
    home.drain()
    newest = [home.notes.newest_seal(tree_path(root / name)) for name in ("one", "two", "other", "")]
    assert newest == [1, 1, 2, 0]


async def test_a_directory_that_was_forgotten_counts_as_one_with_such_a_symlink(
    home: MasterTree, root: Path, closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry_notes, "MOST_DIRECTORIES", 2)
    for name in ("one", "two", "three"):
        (root / name).mkdir()
        (root / name / "link").symlink_to(private(closed, name))
        home.drain()
        await serve(home, root / name)
    assert [home.notes.newest_seal(tree_path(root / name)) for name in ("one", "two", "three")] == [3, 3, 3]


async def test_a_known_target_is_not_followed_again_and_only_so_many_are(
    home: MasterTree, root: Path, closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed: list[bytes] = []

    def follow(path: bytes, stops_at: Callable[[bytes], bool]) -> tuple[list[bytes], bytes]:
        followed.append(path)
        return way_to(path, stops_at)

    monkeypatch.setattr(entry_notes, "way_to", follow)
    monkeypatch.setattr(entry_notes, "MOST_FOLLOWED", 3)
    for number in range(5):
        (root / f"link{number}").symlink_to(private(closed, str(number)))
    await serve(home, root)
    assert (len(followed), home.notes.seals) == (3, 3)
    for number in range(5):
        os.utime(root / f"link{number}", (1, 1), follow_symlinks=False)
    home.drain()
    assert (len(followed), home.notes.seals) == (5, 5), "those that are known leave room for others"
    for directory in ("d", "e"):
        (root / directory).mkdir()
        (root / directory / "link").symlink_to(closed / "0")
    home.drain()
    assert len(followed) == 5
    assert home.notes.newest_seal(tree_path(root / "e")) > 0


async def test_there_are_only_so_many_seals(
    home: MasterTree, root: Path, closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry_notes, "MOST_SEALS", 2)
    for number in range(4):
        (root / f"link{number}").symlink_to(private(closed, str(number)))
    await serve(home, root)
    assert home.notes.seals == 2
    assert len(await names_in(home, closed)) == 2


async def test_a_symlink_to_a_place_where_a_look_may_hang_is_not_followed(
    home: MasterTree, root: Path, closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel holds the one thread of the master until a dead server answers."""
    kinds = {b"": b"ext4", tree_path(closed): b"nfs4"}
    monkeypatch.setattr(entry_notes, "slow_mounts", lambda root: SlowMounts(root, kinds))
    looked: list[str] = []
    readlink = os.readlink

    def look(path: bytes, dir_fd: int | None = None) -> bytes:
        looked.append(os.fsdecode(path))
        return readlink(path, dir_fd=dir_fd)

    (root / "link").symlink_to(private(closed))
    monkeypatch.setattr(look_calls, "readlink", look)
    await serve(home, root)
    monkeypatch.undo()
    assert home.notes.seals == 0
    assert looked and not [path for path in looked if path.startswith(str(closed))]


async def test_a_listing_with_such_a_symlink_is_noted_of_the_mirror_that_asks(
    home: MasterTree, root: Path, closed: Path
) -> None:
    (root / "with").mkdir()
    (root / "without").mkdir()
    (root / "with" / "link").symlink_to(private(closed))
    requests, leases = MirrorRequests(home, {}), [Lease("w", 0, 0.0), Lease("w", 0, 0.0)]
    for lease, name in zip(leases, ("with", "without"), strict=True):
        await requests.answer(lease, GetDirectory(tree_path(root / name)), never)
    assert home.notes.seals == 1
    assert [lease.newest_seal for lease in leases] == [1, 0]


async def never(chunk: bytes) -> None:
    raise AssertionError("no content is sent")


@pytest.mark.parametrize(("number", "is_mixed"), [(errno.EIO, True), (errno.ENOMEM, True), (errno.EACCES, False)])
def test_a_tree_whose_owners_nobody_has_seen_counts_as_mixed(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, is_mixed: bool
) -> None:
    def scandir(path: bytes) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(look_calls, "scandir", scandir)
    tree = MasterTree(TreeConfig(tree_path(root)))
    tree.close()
    assert tree.notes.is_mixed == is_mixed


async def test_a_symlink_is_judged_again_if_the_mounts_could_not_be_read(
    home: MasterTree, root: Path, closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError(errno.EMFILE, os.strerror(errno.EMFILE))]

    def slow_mounts(root: bytes) -> SlowMounts:
        if failures:
            raise failures.pop()
        return SlowMounts(root, {})

    monkeypatch.setattr(entry_notes, "slow_mounts", slow_mounts)
    (root / "link").symlink_to(private(closed))
    await serve(home, root)
    assert home.notes.seals == 0
    home.drain()
    assert home.notes.seals == 1, "before the next job begins"
