"""Test how a job's results reach the disk, and that a simultaneous write by others is noticed."""

import errno
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from termite.engine.errors import FsError, HalfPublished, Reason, RemoteProtocolError, ResultRefused
from termite.engine.model import Attr, Digest
from termite.engine.tree import disk_calls
from termite.engine.tree.logic.access_lists import (
    ACCESS_LIST,
    DEFAULT_LIST,
    ENTRY,
    GROUP_OBJ,
    HEADER,
    MASK,
    OTHER,
    USER_OBJ,
)
from termite.engine.tree.logic.attrs import Seen
from termite.engine.tree.logic.redo_plan import MakeDirectory, Step
from termite.engine.tree.master_tree import MasterTree
from termite.engine.tree.publishing import publication
from termite.engine.tree.publishing.preparation import Contents, Preparation
from termite.engine.tree.publishing.publication import Published
from termite.engine.tree.publishing.steps import StepRunner
from termite.engine.tree.tree_disk import Disk
from tests.edge.engine.tree.tree_jobs import (
    NS,
    Job,
    agrees_with_the_disk,
    changed_since,
    digest_of,
    not_for_ever,
    serve,
    staged_names,
    tree_path,
)

NO_ID = 0xFFFFFFFF  # of an entry of an access control list


@pytest.mark.attack
async def test_no_result_is_written_to_a_tree_that_has_the_path_of_a_moved_one(home: MasterTree, root: Path) -> None:
    await serve(home, root)
    job = Job(home, root).write("made", b"content")
    moved = root.with_name("moved")
    os.rename(root, moved)
    os.mkdir(root)
    with pytest.raises(ResultRefused) as refused:
        await job.end()
    assert refused.value.reason is Reason.TREE_GONE
    assert os.listdir(root) == [] and os.listdir(moved) == [".termite-staging"]


async def test_everything_that_a_job_can_make_comes_home(home: MasterTree, root: Path) -> None:
    await serve(home, root)
    job = Job(home, root).mkdir("d").write("d/f", b"content", 0o750).write("empty")
    job.change("d/l", Attr(stat.S_IFLNK | 0o777, 1, 12 * NS, None, b"f"))
    job.change("d/h", Attr(stat.S_IFREG | 0o750, 7, 1, digest_of(b"content")), link_to="d/f")
    job.change("d/p", Attr(stat.S_IFIFO | 0o622, 0, 13 * NS))
    brought = await job.end()
    assert (root / "d" / "f").read_bytes() == b"content"
    assert stat.S_IMODE((root / "d" / "f").stat().st_mode) == 0o750
    assert (root / "empty").read_bytes() == b""
    assert os.readlink(root / "d" / "l") == "f"
    assert (root / "d" / "l").lstat().st_mtime_ns == 12 * NS
    assert (root / "d" / "h").samefile(root / "d" / "f")
    assert stat.S_ISFIFO((root / "d" / "p").stat().st_mode)
    assert stat.S_IMODE((root / "d" / "p").stat().st_mode) == 0o622
    assert brought == Published(1, ())
    assert await agrees_with_the_disk(home, root)
    assert await agrees_with_the_disk(home, root / "d")
    assert home.drain() == 1, "our own events are no changes"
    assert staged_names(root) == []


async def test_a_name_beyond_the_most_that_an_entry_may_have_is_an_entry_of_its_own(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may have 65,000 names on ext4. Whoever opens a FIFO to copy it waits for ever."""

    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))

    monkeypatch.setattr(disk_calls, "link", refuse)
    await serve(home, root)
    fifo, file = Attr(stat.S_IFIFO | 0o622, 0, 13 * NS), Attr(stat.S_IFREG | 0o644, 1, 1, digest_of(b"1"))
    with not_for_ever():
        await Job(home, root).change("p", fifo).change("q", fifo, link_to="p").end()
        await Job(home, root).change("r", fifo, link_to="p").end()
        with pytest.raises(FsError):
            await Job(home, root).change("lie", file, link_to="p").end()
    assert all((root / name).is_fifo() for name in "pqr")
    assert not (root / "lie").exists() and staged_names(root) == []


async def test_the_journal_knows_the_digests_of_results(home: MasterTree, root: Path) -> None:
    await serve(home, root)
    await Job(home, root).write("f", b"content").end()
    attr = (await changed_since(home, root, 0))["f"]
    assert attr is not None
    assert attr.digest == digest_of(b"content")
    assert attr.mtime_ns == (root / "f").stat().st_mtime_ns


async def test_what_came_home_is_looked_at_once(home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watches report it too, but the next drain need not check it again."""
    await serve(home, root)
    await Job(home, root).mkdir("d").write("d/f", b"content").write("f", b"content").end()
    checked: list[bytes] = []
    read_entries = home._follower.reader.read_entries

    def read_and_note(directory: bytes, fd: int, names: Collection[bytes]) -> dict[bytes, Seen]:
        checked.append(directory)
        return read_entries(directory, fd, names)

    monkeypatch.setattr(home._follower.reader, "read_entries", read_and_note)
    number = home.drain()
    assert checked == []
    (root / "f").write_bytes(b"now by somebody else")
    assert home.drain() == number + 1
    assert checked == [tree_path(root)]


OURS, THEIRS = b"of the job", b"of no job."


def write_as_if_it_were_not(path: Path, content: bytes) -> None:
    """Write in the tick in which the file was made, so that only the watches show it."""
    st = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


@pytest.mark.parametrize("step", ["run", "close"])
@pytest.mark.parametrize("content", [THEIRS, b"longer than " + OURS])
@pytest.mark.parametrize("overflows", [False, True])
async def test_who_writes_to_a_result_at_once_is_heard(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch, step: str, content: bytes, overflows: bool
) -> None:
    await serve(home, root)

    def just_after(done: Callable[..., None]) -> Callable[..., None]:
        def do(*args: object) -> None:
            done(*args)
            write_as_if_it_were_not(root / "f", content)
            if overflows:
                for number in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) + 1):
                    os.utime(root / ("g" if number % 2 else "h"))  # two names in turn, so that events are not merged

        return do

    for name in ("g", "h"):
        (root / name).touch()
    owner = StepRunner if step == "run" else Preparation
    monkeypatch.setattr(owner, step, just_after(getattr(owner, step)))
    await Job(home, root).write("f", OURS).end()
    home.drain()
    assert await served_digest(home, root, "f") == digest_of(content)


@pytest.mark.parametrize("mtime_ns", [-NS, NS])  # the mtime of the result, from now
async def test_who_writes_to_a_result_in_a_new_directory_at_once_is_heard(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch, mtime_ns: int
) -> None:
    """The writer sets an old time, as `cp -p` does, or that of the result."""
    await serve(home, root)
    rename = StepRunner._rename

    def place_and_write(self: StepRunner, staged: bytes, parent: int, name: bytes, *, is_new: bool = False) -> None:
        rename(self, staged, parent, name, is_new=is_new)
        if name == b"f":
            write_as_if_it_were_not(root / "d/f", THEIRS)
            if mtime_ns < 0:
                os.utime(root / "d/f", (0, 0))

    monkeypatch.setattr(StepRunner, "_rename", place_and_write)
    await Job(home, root).mkdir("d").write("d/f", OURS, mtime_ns=time.time_ns() + mtime_ns).end()
    home.drain()
    assert await served_digest(home, root / "d", "f") == digest_of(THEIRS)


async def test_a_result_in_a_new_directory_is_known_all_the_same(home: MasterTree, root: Path) -> None:
    await serve(home, root)
    await Job(home, root).mkdir("d").write("d/f", OURS, mtime_ns=time.time_ns() - NS).end()
    _, _, children = await home.directory(tree_path(root / "d"))
    assert children[b"f"].digest == digest_of(OURS)


async def served_digest(home: MasterTree, directory: Path, name: str) -> Digest:
    _, _, children = await home.directory(tree_path(directory))
    attr = children[os.fsencode(name)]
    fd, digest = await home.open_file(tree_path(directory / name), attr.size, attr.mtime_ns)
    os.close(fd)
    assert attr.digest in (None, digest)
    return digest


@pytest.mark.logs("job-half-published")
@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO])
async def test_what_cannot_be_placed_does_not_stay_staged(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    (root / "d").mkdir()
    await serve(home, root, root / "d")
    find_steps = Preparation.find_steps

    def find_and_lose(self: Preparation, contents: Contents) -> Iterator[None]:
        yield from find_steps(self, contents)
        (root / "d").rmdir()

    monkeypatch.setattr(Preparation, "find_steps", find_and_lose)
    attr = Attr(kind | 0o777, 1, time.time_ns(), target=b"f" if kind == stat.S_IFLNK else b"")
    with pytest.raises(HalfPublished, match=r"not written: d/new"):
        await Job(home, root).change("d/new", attr).end()
    assert staged_names(root) == []


async def test_a_staged_file_comes_home_under_all_its_names(home: MasterTree, root: Path) -> None:
    content = os.urandom(300_000)
    writer = home.staging_file()
    writer.write(content[:1000])
    writer.write(content[1000:])
    job = Job(home, root).write("a", content).write("b", content, 0o755)
    job.contents = {digest_of(content).sha256: writer.finish(digest_of(content))}
    await job.end()
    assert (root / "a").read_bytes() == (root / "b").read_bytes() == content
    assert not (root / "a").samefile(root / "b")
    assert staged_names(root) == []


@pytest.mark.attack
async def test_a_content_that_is_not_what_was_promised_is_refused(home: MasterTree, root: Path) -> None:
    writer = home.staging_file()
    writer.write(b"other")
    with pytest.raises(RemoteProtocolError):
        writer.finish(digest_of(b"content"))
    writer.discard()
    assert staged_names(root) == []


async def test_a_changed_mode_or_time_does_not_touch_the_content(home: MasterTree, root: Path) -> None:
    (root / "f").write_bytes(b"content")
    await serve(home, root)
    before = (root / "f").stat()
    attr = Attr(stat.S_IFREG | 0o755, 7, 5 * NS)
    await Job(home, root).change("f", attr, content=False).change("gone", attr, content=False).end()
    after = (root / "f").stat()
    assert (after.st_ino, stat.S_IMODE(after.st_mode), after.st_mtime_ns) == (before.st_ino, 0o755, 5 * NS)
    assert not (root / "gone").exists()


async def test_a_file_that_was_written_again_with_the_same_content_stays_in_place(home: MasterTree, root: Path) -> None:
    await serve(home, root)
    await Job(home, root).write("f", b"content").end()
    before = (root / "f").stat()
    await Job(home, root).write("f", b"content", 0o755).end()
    after = (root / "f").stat()
    assert after.st_ino == before.st_ino
    assert after.st_mtime_ns > before.st_mtime_ns
    assert stat.S_IMODE(after.st_mode) == 0o755
    changes = home.changesets_since(1)[0].changes
    assert [c.content for c in changes if c.path.endswith(b"/f")] == [False]


def _writes_into(job: Job, directory: str) -> Job:
    """Add the changes of a job that makes a file in a directory that it has found."""
    job.change(directory, Attr(stat.S_IFDIR | 0o755, 0, time.time_ns()), content=False)
    return job.write(f"{directory}/made", b"made")


async def test_a_directory_that_stands_is_not_staged(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each compilation changes the time of its directory; making one would cost as much again."""
    (root / "out").mkdir()
    await serve(home, root)
    calls: list[str] = []

    def counted(name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: object, **options: object) -> None:
            calls.append(name)
            real(*args, **options)

        return call

    for name in ("mkdir", "rmdir"):
        monkeypatch.setattr(disk_calls, name, counted(name, getattr(disk_calls, name)))
    await _writes_into(Job(home, root), "out").end()
    assert (root / "out" / "made").read_bytes() == b"made"
    assert calls == []
    assert staged_names(root) == []


async def test_the_directory_of_a_result_is_opened_once_to_publish_it(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a" / "out").mkdir(parents=True)
    await serve(home, root, root / "a", root / "a" / "out")
    job = _writes_into(Job(home, root), "a/out")
    opened: list[bytes] = []
    open_directory = Disk.open_directory

    def counted(disk: Disk, path: bytes, flags: int = os.O_RDONLY) -> int:
        opened.append(path)
        return open_directory(disk, path, flags)

    monkeypatch.setattr(Disk, "open_directory", counted)
    monkeypatch.setattr(publication, "SLICE_S", 60.0)  # on a busy machine others would run in between
    await job.end()
    assert opened == [tree_path(root / "a" / "out")] * 2, "once to write there, and once to see what was written"
    assert await agrees_with_the_disk(home, root / "a" / "out")


@pytest.mark.parametrize("acl", [False, True])
async def test_a_directory_that_we_may_not_list_takes_results_all_the_same(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch, acl: bool
) -> None:
    (root / "out").mkdir()
    if acl:
        _give_default_list(root / "out")
    await serve(home, root, root / "out")
    open_directory = Disk.open_directory

    def refused(disk: Disk, path: bytes, flags: int = os.O_RDONLY) -> int:
        if path == tree_path(root / "out") and not flags & os.O_PATH:
            raise PermissionError(errno.EACCES, "no right to list it")
        return open_directory(disk, path, flags)

    monkeypatch.setattr(Disk, "open_directory", refused)
    mtime_ns = time.time_ns() - 10 * NS
    job = Job(home, root)
    job.change("out", Attr(stat.S_IFDIR | 0o750, 0, mtime_ns), content=False)
    await job.write("out/made", b"made").end()
    assert (root / "out" / "made").read_bytes() == b"made"
    assert stat.S_IMODE((root / "out").stat().st_mode) == 0o750
    assert bool(_access_list(root / "out" / "made")) == acl


@pytest.mark.logs("job-half-published")
async def test_a_directory_that_is_removed_while_its_results_are_published_is_made_again(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "out").mkdir()
    await serve(home, root, root / "out")
    run = StepRunner.run

    def after_removal(runner: StepRunner, step: Step) -> None:
        if isinstance(step, MakeDirectory):
            (root / "out").rmdir()
        run(runner, step)

    monkeypatch.setattr(StepRunner, "run", after_removal)
    with pytest.raises(HalfPublished):  # what is placed goes to the directory that was open
        await _writes_into(Job(home, root), "out").end()
    assert (root / "out").is_dir()
    assert staged_names(root) == []


def _give_default_list(directory: Path) -> None:
    entries = [(USER_OBJ, 7, NO_ID), (0x02, 6, 1234), (GROUP_OBJ, 5, NO_ID), (MASK, 7, NO_ID), (OTHER, 0, NO_ID)]
    try:
        os.setxattr(directory, DEFAULT_LIST, HEADER.pack(2) + b"".join(ENTRY.pack(*entry) for entry in entries))
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            pytest.skip("a file system without access control lists")
        raise


def _access_list(path: Path) -> bytes:
    return os.getxattr(path, ACCESS_LIST) if ACCESS_LIST in os.listxattr(path) else b""
