"""Jobs leave new names in the temporary directories, and change nothing else there."""

import contextlib
import errno
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from termite.engine import look_calls
from termite.engine.errors import FsError, HalfPublished, Reason, RemoteProtocolError, ResultRefused, Retryable
from termite.engine.model import Attr, Change
from termite.engine.tree import disk_calls
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from termite.engine.tree.publishing.redo import finish_job
from tests.edge.engine.tree.test_redo import TOKEN, Calls, Killed, die, picture, sweep_up, ticket
from tests.edge.engine.tree.tree_jobs import Job, digest_of, serve, staged_names, tree_path

NS = 10**9
calls = pytest.fixture(lambda monkeypatch: Calls(monkeypatch, disk_calls))
IS_ROOT = os.geteuid() == 0
QUEUED_EVENTS = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


@pytest.fixture(params=["/tmp", "/var/tmp", "/dev/shm"])
def temporary(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a private corner of a temporary directory. /dev/shm stands for one on another disk."""
    top = Path(request.param)
    if str(top) == "/dev/shm":
        if not top.is_dir():
            pytest.skip("no /dev/shm")
        for module in ("temporary_names", "visibility"):
            monkeypatch.setattr(f"termite.engine.tree.logic.{module}.TEMPORARY", (b"tmp", b"dev/shm"))
        monkeypatch.delitem(
            __import__("termite.engine.tree.logic.visibility", fromlist=["x"]).STANDARD_DIRECTORIES, b"dev"
        )
    made = top / f"termite-test-{uuid.uuid4().hex}"
    before = areas(top)
    made.mkdir(mode=0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)
    for name in areas(top) - before:  # of masters that were killed, and had no successor
        shutil.rmtree(top / name)


def areas(top: Path) -> set[str]:
    return {name for name in os.listdir(top) if name.startswith(".termite-staging-")}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    path.mkdir()
    return path


@pytest.fixture
def home(root: Path, temporary: Path) -> Iterator[MasterTree]:
    home = MasterTree(TreeConfig(tree_path(root)))
    yield home
    home.close()


class Left:
    """The changes of a job below a temporary directory, and in the tree."""

    def __init__(self, home: MasterTree, root: Path) -> None:
        self.job = Job(home, root)

    def file(self, path: Path, content: bytes = b"left", mode: int = 0o644) -> "Left":
        digest = digest_of(content)
        self.job.contents[digest.sha256] = content
        return self.add(path, Attr(stat.S_IFREG | mode, len(content), time.time_ns(), digest))

    def add(self, path: Path, attr: Attr | None, *, content: bool = True, link_to: Path | None = None) -> "Left":
        self.job.changes.append(Change(tree_path(path), attr, tree_path(link_to) if link_to else None, content))
        return self

    async def end(self) -> None:
        await self.job.end()


def directory(mode: int = 0o755) -> Attr:
    return Attr(stat.S_IFDIR | mode, 0, 7 * NS)


def symlink(target: bytes) -> Attr:
    return Attr(stat.S_IFLNK | 0o777, len(target), 8 * NS, target=target)


async def test_new_names_come_home_and_may_be_changed_and_removed(
    home: MasterTree, root: Path, temporary: Path
) -> None:
    left = Left(home, root).file(temporary / "f", b"1", 0o751).add(temporary / "d", directory(0o777))
    await left.file(temporary / "d/g", b"2", 0o600).add(temporary / "s", symlink(b"d/g")).end()
    assert (temporary / "s").read_bytes() == b"2"
    assert stat.S_IMODE((temporary / "f").stat().st_mode) == 0o751
    assert stat.S_IMODE((temporary / "d").stat().st_mode) == 0o777
    assert stat.S_IMODE((temporary / "d/g").stat().st_mode) == 0o600
    changed = Left(home, root).file(temporary / "f", b"new").add(temporary / "d/g", None).add(temporary / "s", None)
    await changed.file(temporary / "d/h", b"3").end()
    assert picture(temporary).keys() == {"f", "d", "d/h"} and (temporary / "f").read_bytes() == b"new"
    (temporary / "d/by_others").touch()
    await Left(home, root).add(temporary / "d", None).end()
    assert picture(temporary).keys() == {"f"}
    assert [name for name in staged_names(root) if ".area-" not in name] == []
    assert not areas(temporary.parent)


@pytest.mark.parametrize("temporary", ["/tmp"], indirect=True)
async def test_private_names_that_are_gone_leave_room_for_new_ones(
    home: MasterTree, root: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("termite.engine.tree.temporary_files.MOST_SHOWN", 2)
    await serve(home, root, temporary)
    for number in range(4):
        path = temporary / str(number)
        await Left(home, root).file(path, b"1", 0o600).end()
        await serve(home, temporary)
        assert (await home.directory(tree_path(temporary)))[2].keys() == {path.name.encode()}
        await Left(home, root).add(path, None).end()
    for number in range(4):
        path = temporary / f"local{number}"
        path.touch(0o600)
        home.show_named((os.fsencode(path),), tree_path(root), ())
        home.drain()
        assert (await home.directory(tree_path(temporary)))[2].keys() == {path.name.encode()}
        path.unlink()
        monkeypatch.setattr("termite.engine.tree.temporary_files.NAMES_A_SEARCH", 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda left, top: left.file(top / "theirs", b"mine"),
        lambda left, top: left.add(top / "theirs", None),
        lambda left, top: left.add(
            top / "theirs", Attr(stat.S_IFREG | 0o666, 6, 1, digest_of(b"theirs")), content=False
        ),
        lambda left, top: left.add(top / "dir", None),
        lambda left, top: left.add(top / "new", symlink(b"/etc/passwd")),
        lambda left, top: left.add(top / "new", Attr(stat.S_IFIFO | 0o644, 0, 1)),
        lambda left, top: left.file(top / "way/out", b"x"),
        lambda left, top: left.file(top / "nowhere/x", b"x"),
        lambda left, top: left.file(top / "dir", b"x"),
        lambda left, top: left.add(top / "theirs", directory()),
        lambda left, top: left.add(top / "new", directory(0o1777)),
        lambda left, top: left.add(top / "new", directory(0o2755)),
        lambda left, top: left.file(top / "new", b"x", 0o4755),
    ],
)
async def test_anything_else_is_refused_and_nothing_is_changed(
    home: MasterTree, root: Path, temporary: Path, change: Callable[[Left, Path], Left]
) -> None:
    (temporary / "theirs").write_bytes(b"theirs")
    (temporary / "dir").mkdir()
    (temporary / "dir/x").touch()
    (root / "victim").mkdir()
    (temporary / "way").symlink_to(root / "victim")
    before = picture(temporary)
    left = change(Left(home, root), temporary)
    left.job.write("result", b"in the tree")
    with pytest.raises((ResultRefused, FsError)) as refused:
        await left.end()
    if isinstance(refused.value, ResultRefused):
        assert refused.value.reason is Reason.TEMPORARY_TAKEN
        assert str(temporary) in refused.value.places[0]
    assert picture(temporary) == before and picture(root).keys() == {"victim"}


@pytest.mark.parametrize("name", [".X0-lock", "ssh-x", "krb5cc_0"])
async def test_names_of_credentials_do_not_come_home(home: MasterTree, root: Path, name: str) -> None:
    path = Path("/tmp") / f"{name}{uuid.uuid4().hex}"
    with pytest.raises(ResultRefused):
        await Left(home, root).file(path).end()
    assert not path.exists()


async def test_a_name_that_was_given_to_another_file_is_not_ours_any_more(
    home: MasterTree, root: Path, temporary: Path
) -> None:
    await Left(home, root).file(temporary / "f").end()
    (temporary / "g").write_bytes(b"theirs")
    (temporary / "g").rename(temporary / "f")
    with pytest.raises(ResultRefused):
        await Left(home, root).file(temporary / "f", b"mine").end()
    assert (temporary / "f").read_bytes() == b"theirs"


@pytest.mark.needs_root("makes a directory of another user")
async def test_nothing_is_placed_below_a_directory_of_another_user(
    home: MasterTree, root: Path, temporary: Path
) -> None:
    (temporary / "evil/ours").mkdir(parents=True)
    os.chown(temporary / "evil", 12345, 12345)
    (temporary / "evil").chmod(0o777)
    for name in ("evil/x", "evil/ours/x"):
        with pytest.raises(ResultRefused):
            await Left(home, root).file(temporary / name).end()
    assert picture(temporary).keys() == {"evil", "evil/ours"}


@pytest.mark.logs("job-half-published")
@pytest.mark.parametrize("attr", [None, directory()])
async def test_who_takes_the_name_at_the_last_moment_keeps_it(
    home: MasterTree, root: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, attr: Attr | None
) -> None:
    begin = home._staging.plan.begin

    def take(*args: object) -> None:
        begin(*args)  # type: ignore[arg-type]  # as they came
        (temporary / "f").write_bytes(b"theirs")

    monkeypatch.setattr(home._staging.plan, "begin", take)
    left = Left(home, root)
    with pytest.raises(HalfPublished):
        await (left.add(temporary / "f", attr) if attr else left.file(temporary / "f", b"mine")).end()
    assert (temporary / "f").read_bytes() == b"theirs"
    assert stat.S_ISREG((temporary / "f").lstat().st_mode)


async def test_a_private_tree_shares_nothing(root: Path, temporary: Path) -> None:
    home = MasterTree(TreeConfig(tree_path(root), shares_temporary=False))
    with pytest.raises(FsError):
        await Left(home, root).file(temporary / "f").end()
    (temporary / "public").touch()
    assert home.temporary == ()
    if temporary.parent == Path("/dev/shm"):  # it is no directory that every machine has
        home.close()
        return
    _, _, children = await home.directory(tree_path(temporary.parent))
    assert os.fsencode(temporary.name) not in children
    home.close()


@pytest.mark.parametrize("path", [b"tmp/../etc/x", b"tmp//x", b"usr/bin/x", b"tmp"])
async def test_a_path_from_the_wire_does_not_lead_elsewhere(home: MasterTree, root: Path, path: bytes) -> None:
    job = Job(home, root)
    job.changes.append(Change(path, directory()))
    with pytest.raises((FsError, RemoteProtocolError)):
        await job.end()


# -- a master that is killed ------------------------------------------------------------------------------------------


def fill(root: Path, temporary: Path) -> None:
    root.mkdir()
    temporary.mkdir()
    (root / "in_tree").write_text("old")


async def a_job(home: MasterTree, root: Path, temporary: Path) -> Job:
    """Return a job that changes all kinds of things there, after one that has made some of them."""
    first = Left(home, root).file(temporary / "old", b"old").add(temporary / "gone", directory())
    await first.file(temporary / "gone/f", b"f").file(temporary / "was_file", b"w").end()
    await serve(home, root, temporary)
    left = Left(home, root).file(temporary / "new", b"new", 0o750).add(temporary / "d", directory(0o700))
    left.file(temporary / "d/f", b"deep").add(temporary / "s", symlink(b"d/f")).file(temporary / "old", b"written")
    left.add(temporary / "gone", None).add(temporary / "was_file", None).add(temporary / "was_file", directory())
    left.add(temporary / "h", Attr(stat.S_IFREG | 0o750, 3, 1, digest_of(b"new")), link_to=temporary / "new")
    left.job.write("in_tree", b"changed").write("made", b"made")
    return left.job


def close_areas() -> None:
    """Close the staging directories on other disks, as the kernel does when a process ends."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            if "/.termite-staging-" in os.readlink(f"/proc/self/fd/{fd}"):
                os.close(fd)


@pytest.mark.parametrize("by", ["the launcher", "the next master", "the sweep"])
async def test_a_plan_is_finished_there_as_well_wherever_the_master_was_killed(
    tmp_path: Path, temporary: Path, calls: Calls, by: str
) -> None:
    pictures = []
    last, happened = 0, 0
    was_killed = True
    while was_killed or last <= 2:
        root, there = tmp_path / f"tree{last}", temporary / f"t{last}"
        fill(root, there)
        home = MasterTree(TreeConfig(tree_path(root)))
        job = await a_job(home, root, there)
        if last < 2:
            pictures.append((picture(root), picture(there)))
        calls.arm(last if last > 1 else 0)
        was_killed = False
        if last != 0:
            try:
                await job.end(ticket=ticket())
            except (Killed, BaseExceptionGroup):
                was_killed = True
        calls.arm(0)
        if last == 1:
            pictures[1] = picture(root), picture(there)
        die(home)
        close_areas()
        if by == "the launcher":
            end = finish_job(root, TOKEN, print, 0)
            is_done = end is not None
            assert end in (None, ticket().end)
        elif by == "the next master":
            MasterTree(TreeConfig(tree_path(root))).close()
        else:
            sweep_up(root)
        found = picture(root), picture(there)
        if by != "the launcher":
            is_done = found == pictures[-1] and last > 0
            assert not (root / ".termite-staging").exists()
            assert not areas(there.parent.parent)
        if last > 1:
            assert found == pictures[1 if is_done else 0], last
            assert is_done or not happened, last
            happened += is_done
        last += 1
    assert last > 40 and happened > 15, (last, happened)


# -- other programs work there all the time ---------------------------------------------------------------------------


async def test_lost_events_of_a_crowded_directory_concern_nothing_else(home: MasterTree, root: Path) -> None:
    chosen = Path("/tmp") / f"termite-test-{uuid.uuid4().hex}"
    chosen.mkdir(mode=0o700)
    try:
        home.show_named((), tree_path(root), (b"TMPDIR=" + os.fsencode(chosen),))
        await serve(home, root, chosen)
        rescans = home.statistics()["rescans"]
        for name in ("g", "h"):
            (chosen / name).touch()
        for number in range(QUEUED_EVENTS + 1):
            os.utime(chosen / ("g" if number % 2 else "h"))  # two names in turn, so that events are not merged
        (chosen / "public").write_bytes(b"1")
        (chosen / "private").touch(mode=0o600)
        home.drain()
        _, _, children = await home.directory(tree_path(chosen))
        assert children.keys() == {b"g", b"h", b"public"}
        assert home.statistics()["rescans"] == rescans, "the tree was not listed again"
    finally:
        shutil.rmtree(chosen)


async def test_private_files_of_others_are_no_news(home: MasterTree, root: Path, temporary: Path) -> None:
    await serve(home, root, temporary.parent)
    number = home.drain()
    path = temporary.parent / f"termite-test-{uuid.uuid4().hex}"
    path.touch(mode=0o600)
    path.write_bytes(b"secret")
    named = [c.path for s in home.changesets_since(number) for c in s.changes] if home.drain() > number else []
    path.unlink()
    assert tree_path(path) not in named


@pytest.mark.parametrize("temporary", ["/tmp", "/var/tmp"], indirect=True)
async def test_what_jobs_see_there_is_named_private_or_public(home: MasterTree, root: Path, temporary: Path) -> None:
    (temporary / "d").mkdir(mode=0o700)
    (temporary / "d/f").touch(mode=0o600)
    (temporary / "d/g").touch(mode=0o600)
    await serve(home, root, temporary)
    home.show_named((b"cat", os.fsencode(temporary / "d/f")), tree_path(root), ())
    _, _, children = await home.directory(tree_path(temporary / "d"))
    assert children.keys() == {b"f"}
    (temporary / "d/f").write_bytes(b"changed")
    assert home.drain() > 0, "the way to it is watched"


def fail_once(monkeypatch: pytest.MonkeyPatch, name: bytes) -> None:
    """Let the next stat of an entry with this name fail."""
    real, failures = look_calls.stat, [OSError(errno.EIO, os.strerror(errno.EIO))]

    def fail(path: bytes, **options: Any) -> os.stat_result:
        if failures and path == name:
            raise failures.pop()
        return real(path, **options)

    monkeypatch.setattr(look_calls, "stat", fail)


async def test_a_name_whose_look_fails_is_neither_absent_nor_ours(
    home: MasterTree, root: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if temporary.is_relative_to("/dev/shm"):
        pytest.skip("only names below /tmp and /var/tmp are found in commands")
    (temporary / "private").mkdir(mode=0o700)
    (temporary / "of-others").write_bytes(b"theirs")
    named = (b"ls", bytes(temporary / "private")), bytes(root), (b"A=b",)
    fail_once(monkeypatch, b"private")
    with pytest.raises(Retryable) as caught:
        home.show_named(*named)
    assert caught.value.reason is Reason.LOOK_FAILED
    home.show_named(*named)
    home.drain()
    _, _, children = await home.directory(tree_path(temporary))
    assert b"private" in children
    fail_once(monkeypatch, b"of-others")
    with pytest.raises(Retryable):
        await Left(home, root).file(temporary / "of-others").end()
    with pytest.raises(ResultRefused):
        await Left(home, root).file(temporary / "of-others").end()
    assert (temporary / "of-others").read_bytes() == b"theirs"
