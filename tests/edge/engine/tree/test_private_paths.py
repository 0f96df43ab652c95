"""Test which paths of this machine exist but are not shown to jobs."""

import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.engine.errors import FsError, Reason, Retryable
from termite.engine.fleet.lease import Lease
from termite.engine.master.mirror_requests import MirrorRequests
from termite.engine.tree.logic.visibility import Exports
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from termite.engine.tree.tools import entry_notes, private_entries, slow_mounts
from termite.engine.tree.tools.private_entries import refusal_of
from termite.engine.tree.tools.tool_homes import ToolPlace
from termite.engine.tree.tree_disk import Disk
from termite.engine.wire.protocol.messages import Directory, GetDirectory
from tests.edge.engine.tree.tree_jobs import tree_path


@pytest.fixture
def base() -> Iterator[Path]:
    """Yield a directory that others may read. It lies where homes are: no job sees /tmp."""
    base = Path(tempfile.mkdtemp(prefix="termite-edge-", dir="/home" if os.geteuid() == 0 else Path.home()))
    base.chmod(0o755)
    if os.geteuid() != 0 and not all(parent.stat().st_mode & 0o005 == 0o005 for parent in base.parents):
        os.rmdir(base)
        pytest.skip("the home directory is private")
    yield base
    remove_tree(base)


def remove_tree(base: Path) -> None:
    for path in (base, *base.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(base)


@pytest.fixture
def tree(base: Path) -> Iterator[MasterTree]:
    (base / "project").mkdir()
    for name in ("shown", "excluded"):
        (base / name).mkdir(mode=0o700)
    config = TreeConfig(
        tree_path(base / "project"), exports=(tree_path(base / "shown"),), excludes=(tree_path(base / "excluded"),)
    )
    tree = MasterTree(config)
    yield tree
    tree.close()


def found(tree: MasterTree, path: Path, listed: str = "") -> Path | None:
    private = tree.find_private(tree_path(path), listed=listed.encode())
    return Path("/" + os.fsdecode(private)) if private else None


def test_a_private_directory_hides_all_below_it_whether_it_exists_or_not(tree: MasterTree, base: Path) -> None:
    (base / "d").mkdir(mode=0o700)
    (base / "d" / "x").touch()
    for name in ("d", "d/x", "d/nothing", "d/nothing/x"):
        assert found(tree, base / name) == base / "d"


def test_a_private_file_hides_itself(tree: MasterTree, base: Path) -> None:
    (base / "f").touch(mode=0o600)
    (base / "g").touch(mode=0o644)
    assert (found(tree, base / "f"), found(tree, base / "g")) == (base / "f", None)


def test_a_directory_that_can_be_searched_but_not_listed_hides_its_entries(tree: MasterTree, base: Path) -> None:
    (base / "d").mkdir(mode=0o711)
    (base / "d").chmod(0o711)
    (base / "d" / "x").touch()
    assert found(tree, base / "d" / "x") == base / "d"


def test_a_directory_of_which_jobs_see_only_the_way_down_is_private(tree: MasterTree, base: Path) -> None:
    """Naming it would find nothing: the user's home, and the private directory above the tree."""
    home = base / "home"
    for name in ("bin", "tool", "open"):
        (home / name).mkdir(parents=True)
    home.chmod(0o700)
    settings = home / ".gitconfig"
    settings.touch()
    sealed = ToolPlace(bytes(settings), is_watched=False, is_sealed=True)
    tree.show_tools([sealed, ToolPlace(bytes(home / "tool"), is_watched=False)], [bytes(home / "bin")])
    assert found(tree, home) == home
    assert found(tree, home, "*.t") == home
    assert found(tree, home / "open") == home / "open"
    assert found(tree, home / "bin") == home / "bin", "only its programs are seen"
    assert found(tree, home / "tool") is None
    home.chmod(0o755)
    assert found(tree, home) is None


def test_the_private_directory_above_the_tree_is_private(base: Path) -> None:
    above = base / "above"
    (above / "project").mkdir(parents=True)
    above.chmod(0o700)
    tree = MasterTree(TreeConfig(tree_path(above / "project")))
    try:
        assert found(tree, above) == above
        assert found(tree, above / "project") is None
    finally:
        tree.close()


def test_in_a_temporary_directory_a_path_that_the_text_does_not_spell_out_is_private(tmp_path: Path) -> None:
    """Jobs are shown private names there if a command has them in its text."""
    above = tmp_path / "above"
    (above / "project").mkdir(parents=True)
    (above / "file").touch()
    above.chmod(0o700)
    tree = MasterTree(TreeConfig(tree_path(above / "project")))
    try:
        private = tree.find_private(tree_path(above / "file"), is_spelled=False)
        assert private and tree_path(above / "file").startswith(private)
        assert tree.find_private(tree_path(above / "file"), is_spelled=True) == b""
        assert tree.find_private(tree_path(above), is_spelled=True), "it is above the tree, so naming shows nothing"
        assert tree.find_private(tree_path(above / "project"), is_spelled=False) == b""
    finally:
        tree.close()


def test_the_entries_that_a_pattern_names_count(tree: MasterTree, base: Path) -> None:
    (base / "d").mkdir(mode=0o755)
    for name, mode in (("a.h", 0o644), ("b.h", 0o600), (".c.h", 0o600), ("x", 0o600)):
        (base / "d" / name).touch()
        (base / "d" / name).chmod(mode)
    hidden = {pattern: found(tree, base / "d", pattern) for pattern in ("", "*.h", "a*", ".*", "*.c", "*")}
    expected = {"": None, "*.h": "b.h", "a*": None, ".*": ".c.h", "*.c": None}
    assert {pattern: place and place.name for pattern, place in hidden.items() if pattern != "*"} == expected
    assert hidden["*"] is not None and hidden["*"].name in ("b.h", "x")


@pytest.mark.parametrize("name", ["", "nothing", "nothing/x", "project", "project/x", "shown", "shown/x", "excluded/x"])
def test_what_is_shown_absent_or_excluded_is_not_private(tree: MasterTree, base: Path, name: str) -> None:
    for directory in ("project", "shown", "excluded"):
        (base / directory / "x").touch(mode=0o600)
    assert found(tree, base / name) is None


@pytest.mark.parametrize("path", ["/", "/tmp/x", "/proc/1/mem", "/dev/null", "/run", "/usr/bin/env"])
def test_neither_the_standard_directories_nor_the_system_is_private(tree: MasterTree, path: str) -> None:
    assert found(tree, Path(path)) is None


@pytest.mark.parametrize("path", ["/dev", "/dev/shm", "/dev/stdin", "/dev/pts", "/dev/nothing", "/run/nothing"])
def test_what_every_sandbox_has_is_not_private(tree: MasterTree, path: str) -> None:
    assert found(tree, Path(path)) is None


def test_what_only_this_machine_has_is_private(tree: MasterTree) -> None:
    """Devices, daemons, and what local commands leave in shared memory are there."""
    with tempfile.NamedTemporaryFile(prefix="termite-edge-", dir="/dev/shm") as left:
        assert found(tree, Path(left.name)) == Path(left.name)
        assert found(tree, Path("/dev/shm"), "termite-edge-*") == Path(left.name)
        assert found(tree, Path("/dev/shm")) is None, "a job has one of its own"
    assert found(tree, Path("/dev"), "nul*") is None
    assert found(tree, Path("/dev/fuse")) == Path("/dev/fuse")
    entry = next(Path("/run").iterdir())
    assert found(tree, entry) == entry


def test_a_path_that_is_none_is_not_private(tree: MasterTree) -> None:
    assert tree.find_private(b"a/../b") == tree.find_private(b"a" * 20_000) == b""


# -- entries that a job asks for by name ------------------------------------------------------------------------------


def serve(tree: MasterTree, path: Path) -> tuple[bool, bool]:
    tree.load(tree_path(path), "")
    return tree.notes.hides(tree_path(path))


def test_a_directory_that_only_leads_to_the_tree_is_not_listed(tree: MasterTree, base: Path) -> None:
    base.chmod(0o711)
    tree.load(tree_path(base), "")
    assert tree.notes.hides(tree_path(base)) == (True, True)


def test_a_directory_says_whether_it_has_more_than_jobs_see(tree: MasterTree, base: Path) -> None:
    for name in ("open", "some"):
        (base / name).mkdir()
    (base / "some" / "f").touch(mode=0o600)
    (base / "open" / "f").touch()
    assert serve(tree, base / "open") == (False, False)
    assert serve(tree, base / "some") == (True, False)
    assert serve(tree, base / "project") == (False, False), "jobs see all of the tree"
    assert serve(tree, Path("/etc")) == (False, False), "each program looks there for ld.so.preload"
    assert serve(tree, Path("/usr/include")) == (False, False), "compilers ask there for hundreds of names"
    assert serve(tree, Path("/tmp")) == (False, False), "and each job for new ones"


async def test_a_mirror_is_told_anew_of_a_directory_in_which_something_private_appears(
    tree: MasterTree, base: Path
) -> None:
    (base / "tools").mkdir()
    (base / "tools" / "shown").touch(mode=0o644)
    requests, lease = MirrorRequests(tree, {}), Lease("w", 0, 0.0)
    asked = GetDirectory(tree_path(base / "tools"))

    async def flags() -> tuple[bool, bool, bool]:
        """Return those of the directory, and whether the mirror of the lease knows them."""
        reply = await requests.answer(lease, asked, never)
        assert isinstance(reply, Directory) and lease.known_turns is not None
        return reply.is_partial, reply.is_unlisted, lease.known_turns == tree.notes.turns

    assert await flags() == (False, False, True)
    (base / "tools" / "settings").touch(mode=0o600)
    tree.drain()
    assert lease.known_turns == 0 and tree.notes.turns == 1
    assert await flags() == (True, False, False), "it has told jobs of an absence that is none"
    lease = Lease("w", 0, 0.0)
    (base / "tools" / "more").touch(mode=0o600)
    await tree.recheck_settled()
    assert await flags() == (True, False, True)
    (base / "other").mkdir()
    (base / "other" / "settings").touch(mode=0o600)
    tree.drain()
    lease = Lease("w", 0, 0.0)
    await requests.answer(lease, GetDirectory(tree_path(base / "other")), never)
    assert lease.known_turns == tree.notes.turns, "nobody was told otherwise"
    asked = GetDirectory(tree_path(base))
    assert await flags() == (True, False, True)
    os.chmod(base, 0o711)
    await tree.recheck_settled()
    assert await flags() == (True, True, False)


def test_only_so_many_entries_of_others_are_looked_at(
    tree: MasterTree, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bytes] = []

    def is_within_reach(fd: int, name: bytes, mode: int) -> bool:
        looks.extend([name] if name.isdigit() else [])
        return False

    monkeypatch.setattr(entry_notes, "is_within_reach", is_within_reach)
    monkeypatch.setattr(entry_notes, "MOST_OUT_OF_REACH", 3)
    for name, count in (("few", 3), ("many", 4)):
        (base / name).mkdir()
        for number in range(count):
            (base / name / str(number)).touch(mode=0o600)
    assert (serve(tree, base / "few"), len(looks)) == ((False, False), 3)
    looks.clear()
    assert (serve(tree, base / "many"), looks) == ((True, False), [])


async def never(chunk: bytes) -> None:
    raise AssertionError("no content is sent")


async def test_a_job_learns_of_private_directories_and_links_only_that_they_are_there(
    tree: MasterTree, base: Path
) -> None:
    (base / "d").mkdir(mode=0o700)
    (base / "d" / "below").mkdir(mode=0o700)
    (base / "d" / "f").touch(mode=0o600)
    os.mkfifo(base / "d" / "fifo")
    (base / "d" / "link").symlink_to("f")
    names = ("d", "d/below", "d/link", "d/none", "d/f/x")
    found = {name: await tree.private_entry(tree_path(base / name)) for name in names}
    assert [attr and (oct(attr.mode), attr.target) for attr in found.values()] == [
        ("0o40700", b""),
        ("0o40700", b""),
        ("0o120777", b"f"),
        None,
        None,
    ]
    for name in ("d/f", "d/fifo"):
        with pytest.raises(Retryable) as error:
            await tree.private_entry(tree_path(base / name))
        assert (error.value.reason, error.value.detail) == (Reason.UNSEEN_PROGRAM, str(base / name))


async def test_nobody_learns_of_what_is_excluded_or_made_by_the_sandbox(tree: MasterTree, base: Path) -> None:
    (base / "excluded" / "f").touch()
    (base / "d").mkdir(mode=0o700)
    (base / "d" / "out").symlink_to("../excluded")
    for path in (base / "excluded", base / "excluded/f", base / "d/out/f", Path("/dev/null"), Path("/proc/1")):
        assert await tree.private_entry(tree_path(path)) is None, path


async def unseen(tree: MasterTree, path: Path) -> str:
    """Return the path that sends a command home which looks for `path`, or "" if none does."""
    try:
        await tree.private_entry(tree_path(path))
    except Retryable as error:
        assert error.reason is Reason.UNSEEN_PROGRAM
        return error.detail
    return ""


async def test_a_private_place_on_a_slow_mount_is_no_missing_one(
    tree: MasterTree, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, kinds = base / "d", {b"": b"ext4"}
    home.mkdir(mode=0o700)
    (home / "f").touch(mode=0o600)
    monkeypatch.setattr(slow_mounts, "slow_mounts", lambda root: slow_mounts.SlowMounts(root, kinds))
    kinds[tree_path(home)] = b"nfs4"
    assert await tree.private_entry(tree_path(home)) is not None
    assert [await unseen(tree, path) for path in (home / "none", home / "f")] == ["", str(home / "f")]
    held = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(private_entries, "SLOW_LOOK_S", 0.05)
        patch.setattr(private_entries, "look_at_entry", lambda disk, path: held.wait())
        assert await unseen(tree, home / "none") == str(home / "none"), "the server is silent"
    assert await unseen(tree, home / "none") == str(home / "none"), "it is not asked again at once"
    held.set()
    kinds[tree_path(home)] = b"autofs"
    with monkeypatch.context() as patch:
        patch.setattr(private_entries, "look_at_entry", lambda disk, path: 1 / 0)
        assert await unseen(tree, home / "none") == str(home / "none"), "nothing is mounted"


def test_a_directory_of_the_tree_that_its_owner_may_not_list_sends_the_command_home(base: Path) -> None:
    exports, disk = Exports(tree_path(base / "project"), (), (), ()), Disk(b"/")
    for name in ("project/d", "other"):
        (base / name).mkdir(parents=True)
    refused = PermissionError(errno.EACCES, "refused")
    found = [
        refusal_of(disk, exports, tree_path(base / name), refused) for name in ("project/d", "project/none", "other")
    ]
    disk.close()
    assert isinstance(found[0], Retryable) and found[0].reason is Reason.UNSEEN_PROGRAM
    assert [error.errno for error in found[1:] if isinstance(error, FsError)] == [errno.EACCES] * 2
