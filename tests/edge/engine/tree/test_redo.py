"""A publication that was killed at any call is finished by another process, or never began."""

import gc
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import EACCES, EDQUOT, EIO, ENOSPC, ESTALE
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

from termite.engine import look_calls
from termite.engine.errors import FsError, HalfPublished, Retryable
from termite.engine.model import Attr
from termite.engine.tree import disk_calls
from termite.engine.tree.logic.redo_plan import JobEnd
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from termite.engine.tree.publishing import publication
from termite.engine.tree.publishing.kept_plans.plan_file import PlanFile, lock
from termite.engine.tree.publishing.orphaned_plans import clear_abandoned_tree
from termite.engine.tree.publishing.preparation import Contents, Preparation
from termite.engine.tree.publishing.publication import SLICE_S, Publication, Ticket
from termite.engine.tree.publishing.redo import finish_job
from termite.engine.tree.publishing.steps import StepRunner, near_name
from termite.engine.tree.temporary_files import TemporaryFiles
from termite.engine.tree.tree_disk import remove_beneath
from tests.edge.engine.tree.tree_jobs import Job, agrees_with_the_disk, digest_of, serve, staged_names, tree_path

TOKEN = b"launcher"
PLAN = "pwrite"  # the call with which a plan is written
STEP = 2  # of the sweeps: a round takes 50 ms, and the end-to-end test takes every call
NS = 10**9
GONE_PID = 2**22 + 1  # higher than any pid of Linux


class Killed(BaseException):
    """Stands for the end of the process: every later call raises it too."""


class Calls:
    """The system calls of a module, of which one is the last, or some fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
        self.count = 0
        self.last = 0
        self.error = 0
        self.often = 1
        self.first = ""
        for name, call in list(vars(module).items()):
            if not name.startswith("_") and not isinstance(call, ModuleType):
                monkeypatch.setattr(module, name, self._wrap(name, call))

    def arm(self, last: int, error: int = 0, often: int = 1, first: str = "") -> None:
        """Let the call with this number be the last one, or fail. `first`: count from that call."""
        self.count, self.last, self.error, self.often, self.first = 0, last, error, often, first

    @property
    def is_reached(self) -> bool:
        return 0 < self.last <= self.count

    def _wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            self.count += self.count > 0 or name.startswith(self.first)
            if self.is_reached and not self.error:
                raise Killed
            if self.is_reached and self.count < self.last + self.often:
                if name == "close":  # the kernel frees the descriptor also when it reports an error
                    call(*args)
                raise OSError(self.error, os.strerror(self.error))
            return call(*args, **options)

        return counted


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch, disk_calls)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch, look_calls)


def fill(root: Path) -> None:
    for name in ("old/a", "old/sub/b", "was_directory/x", "read_only/x", "moved/1", "moved/2"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    for name in ("was_file", "written", "removed", "mode", "linked"):
        (root / name).write_text(name)
    (root / "read_only").chmod(0o555)


async def a_job_of_every_kind(home: MasterTree, root: Path) -> Job:
    """Return a job with all kinds of changes; a file came into a directory that it removes."""
    await serve(home, root, *(root / name for name in ("old", "old/sub", "was_directory", "read_only", "moved")))
    job = Job(home, root)
    (root / "old/late").write_text("by the user")
    job.delete("old", "was_directory", "was_file", "removed", "moved")
    job.mkdir("d", mtime_ns=7 * NS).write("d/f", b"content", 0o750).mkdir("d/deep", 0o500).write("d/deep/g", b"g")
    job.write("was_directory", b"now a file").mkdir("was_file").write("was_file/x", b"x").write("written", b"anew")
    job.write("read_only/y", b"y").mkdir("to").write("to/1", b"moved/1").write("to/2", b"moved/2")
    job.change("s", Attr(stat.S_IFLNK | 0o777, 1, 12 * NS, None, b"d/f"))
    job.change("h", Attr(stat.S_IFREG | 0o644, 6, 1, digest_of(b"linked")), link_to="linked")
    job.change("d/h", Attr(stat.S_IFREG | 0o750, 7, 1, digest_of(b"content")), link_to="d/f")
    job.change("p", Attr(stat.S_IFIFO | 0o622, 0, 13 * NS))
    job.change("mode", Attr(stat.S_IFREG | 0o711, 4, 9 * NS, digest_of(b"mode")), content=False)
    return job


async def a_job_of_2000_files(home: MasterTree, root: Path) -> Job:
    await serve(home, root)
    job = Job(home, root)
    for number in range(2000):
        job.write(f"f{number}", b"%d" % number)
    return job


def picture(root: Path) -> dict[str, object]:
    """Return everything of a tree but what two runs cannot have in common."""
    found: dict[str, object] = {}
    first_names: dict[int, str] = {}
    for directory, directories, names in os.walk(root):
        for name in sorted(directories + names):
            path = Path(directory) / name
            st = path.lstat()
            key = str(path.relative_to(root))
            if key.startswith(".termite"):
                continue
            content = path.read_bytes() if stat.S_ISREG(st.st_mode) else b""
            fixed = st.st_mtime_ns if st.st_mtime_ns < 100 * NS else 0
            target = os.readlink(path) if path.is_symlink() else ""
            found[key] = st.st_mode, content, fixed, target, first_names.setdefault(st.st_ino, key)
    return found


def new_master(root: Path) -> MasterTree:
    return MasterTree(TreeConfig(tree_path(root)))


def ticket(pid: int = GONE_PID) -> Ticket:
    return Ticket(JobEnd(TOKEN, pid, 3, 0, b"stdin_offset=1\0"), lambda: False)


def die(home: MasterTree) -> None:
    """Free what the kernel frees when a process ends, and nothing else."""
    home._follower.watches.close()
    home._disk.close()
    home._hashes.close()
    staging = home._staging
    for fd in (staging.plan._fd, staging.fd, staging._top, staging._clock):
        os.close(fd)


async def publish_until_killed(
    home: MasterTree, job: Job, calls: Calls, last: int, pid: int = GONE_PID, first: str = ""
) -> bool:
    """Return whether the publication was killed at the call with this number."""
    calls.arm(last, first=first)
    was_killed = False
    try:
        await job.end(ticket=ticket(pid))
    except (Killed, BaseExceptionGroup):
        was_killed = True
    assert was_killed is calls.is_reached
    calls.arm(0)
    return was_killed


@pytest.fixture
async def expected(tmp_path: Path) -> tuple[dict[str, object], dict[str, object]]:
    """Return the tree before the job, and after one undisturbed run."""
    root = tmp_path / "expected"
    root.mkdir()
    fill(root)
    home = new_master(root)
    job = await a_job_of_every_kind(home, root)
    before = picture(root)
    await job.end()
    after = picture(root)
    assert len(after) > 20 and "old/late" in after and "old/a" not in after
    home.close()
    return before, after


def sweep_up(root: Path) -> None:
    """Clean up after the killed master of a tree, as a process that serves nothing."""
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert clear_abandoned_tree(top)
    finally:
        os.close(top)


@pytest.mark.parametrize("by", ["the launcher", "the next master", "the sweep"])
async def test_it_is_finished_wherever_it_was_killed(
    tmp_path: Path, calls: Calls, expected: tuple[dict[str, object], dict[str, object]], by: str
) -> None:
    before, after = expected
    last, happened = 1 - STEP, 0
    was_killed = True
    while was_killed:
        last += STEP
        root = tmp_path / f"tree{last}"
        root.mkdir()
        fill(root)
        home = new_master(root)
        was_killed = await publish_until_killed(home, await a_job_of_every_kind(home, root), calls, last)
        die(home)
        if by != "the launcher":
            if by == "the sweep":
                sweep_up(root)
            else:
                new_master(root).close()
            assert not (root / ".termite-staging").exists()
            assert picture(root) in (before, after), last
            assert happened == 0 or picture(root) == after, last
            happened += picture(root) == after
        else:
            end = finish_job(root, TOKEN, print, 0)
            assert end in (None, ticket().end)
            assert picture(root) == (after if end else before), last
            assert happened == 0 or end, last
            happened += end is not None
    assert last > 80 and happened * STEP > 30, (last, happened)


async def test_whoever_finishes_it_may_be_killed_as_well(
    tmp_path: Path, calls: Calls, expected: tuple[dict[str, object], dict[str, object]]
) -> None:
    _, after = expected
    finished = 0
    for first in (2, 12, 17, 26):
        for second in range(1, 60, 5):
            root = tmp_path / f"tree{first}-{second}"
            root.mkdir()
            fill(root)
            home = new_master(root)
            await publish_until_killed(home, await a_job_of_every_kind(home, root), calls, first, first=PLAN)
            die(home)
            calls.arm(second)
            said: list[str] = []
            with suppress(Killed):
                assert finish_job(root, TOKEN, said.append, 0) is not None
            is_reached = calls.is_reached
            calls.arm(0)
            if not is_reached:
                break
            assert finish_job(root, TOKEN, said.append, 0) in (None, ticket().end)
            assert (picture(root), said) == (after, [])
            finished += 1
    assert finished > 20


@pytest.mark.logs("staging-not-emptied")
async def test_an_error_that_passes_is_waited_for(
    tmp_path: Path,
    calls: Calls,
    expected: tuple[dict[str, object], dict[str, object]],
    autojump_clock: trio.testing.MockClock,
) -> None:
    before, after = expected
    last, refused = 1 - 2 * STEP, 0
    is_reached = True
    while is_reached:
        last += 2 * STEP
        root = tmp_path / f"tree{last}"
        root.mkdir()
        fill(root)
        home = new_master(root)
        job = await a_job_of_every_kind(home, root)
        calls.arm(last, ENOSPC)
        try:
            await job.end()
        except FsError:
            refused += 1
            assert picture(root) == before, last
            assert staged_names(root) == []
        else:
            assert picture(root) == after, last
            assert await agrees_with_the_disk(home, root)
        is_reached = calls.is_reached
        calls.arm(0)
        home.close()
    assert refused > 5 and last > 80


@pytest.mark.logs("staging-not-emptied", "late-write-lost")
@pytest.mark.parametrize("error", [EIO, ESTALE])
async def test_a_look_that_fails_once_ends_the_job_before_it_has_happened_or_is_repeated(
    tmp_path: Path,
    looks: Calls,
    expected: tuple[dict[str, object], dict[str, object]],
    error: int,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    before, after = expected
    last, refused = 1 - STEP, 0
    is_reached = True
    while is_reached:
        last += STEP
        root = tmp_path / f"tree{last}"
        root.mkdir()
        fill(root)
        home = new_master(root)
        job = await a_job_of_every_kind(home, root)
        looks.arm(last, error)
        try:
            await job.end()
        except (FsError, Retryable) as failure:
            refused += 1
            assert picture(root) == before, (last, failure)
            assert staged_names(root) == [] or "staging-not-emptied" in caplog.text
            caplog.clear()
        else:
            assert picture(root) == after, last
        is_reached = looks.is_reached
        looks.arm(0)
        home.drain()  # looks again where the look has failed
        assert await agrees_with_the_disk(home, root)
        home.close()
    assert refused > 5 and last > 80


@pytest.mark.logs("job-half-published", "outcome-not-written", "staging-not-emptied")
@pytest.mark.parametrize("error", [ENOSPC, EDQUOT, EIO, EACCES])
async def test_an_error_that_stays_ends_the_job_and_names_what_is_missing(
    home: MasterTree, root: Path, calls: Calls, error: int, autojump_clock: trio.testing.MockClock
) -> None:
    await serve(home, root)
    (root / "last").write_text("")
    job = Job(home, root).write("first", b"1").write("second", b"2").delete("last")
    calls.arm(2, error, often=10**9, first="rename")
    began_s = trio.current_time()
    with pytest.raises(HalfPublished) as failed:
        await job.end()
    calls.arm(0)
    assert failed.value.lines[1:] == ("written: first", "not written: second, last")
    assert os.strerror(error) in failed.value.lines[0]
    assert (trio.current_time() - began_s > 4) is (error != EACCES)
    assert (root / "first").exists() and not (root / "second").exists()
    assert await agrees_with_the_disk(home, root)


HALF_LOGS = pytest.mark.logs("job-half-published", "publication-failed")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (TemporaryFiles, "expect"),
        (StepRunner, "__init__"),
        (PlanFile, "begin"),
        pytest.param(StepRunner, "run", marks=HALF_LOGS),
        pytest.param(Preparation, "note_published", marks=HALF_LOGS),
        pytest.param(Publication, "_note_done", marks=HALF_LOGS),
        pytest.param(PlanFile, "end", marks=pytest.mark.logs("outcome-not-written")),
    ],
)
async def test_an_error_that_nobody_expects_is_before_the_plan_or_names_what_is_missing(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    await serve(home, root)
    job = Job(home, root).write("first", b"1").write("second", b"2")
    ticket = Ticket(JobEnd(b"12345678", 0, 4, 0, b""), lambda: False)

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Publication, "_is_outside", property(lambda _: True, lambda *_: None), raising=False)
    monkeypatch.setattr(owner, name, fail)
    try:
        await job.end(ticket=ticket)
    except HalfPublished as half:
        assert ticket.has_happened and not ticket.is_complete
        assert "first" in "".join(half.lines) and "second" in "".join(half.lines)
    except MemoryError:
        assert not ticket.has_happened and os.listdir(root) == [".termite-staging"]
    else:
        assert ticket.is_complete and (root / "first").exists() and (root / "second").exists()
    monkeypatch.undo()
    await Job(home, root).write("first", b"1").write("second", b"2").end()
    assert await agrees_with_the_disk(home, root)


async def test_a_job_that_is_cancelled_after_its_plan_is_completed(home: MasterTree, root: Path) -> None:
    job = await a_job_of_2000_files(home, root)
    with trio.CancelScope() as scope:

        async def cancel_later() -> None:
            while not (root / "f0").exists():
                await trio.lowlevel.checkpoint()
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_later)
            await job.end()
    assert len(os.listdir(root)) == 2001
    assert staged_names(root) == []


async def test_a_job_that_is_cancelled_before_its_plan_leaves_no_trace(home: MasterTree, root: Path) -> None:
    job = await a_job_of_2000_files(home, root)
    with trio.move_on_after(0.03) as scope:
        await job.end()
    assert scope.cancelled_caught
    assert os.listdir(root) == [".termite-staging"]
    assert staged_names(root) == []


async def test_other_tasks_run_while_thousands_of_files_are_published(home: MasterTree, root: Path) -> None:
    job = await a_job_of_2000_files(home, root)
    turns = [time.process_time()]  # CPU seconds: on a busy machine the others' are not counted

    async def watch() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            turns.append(time.process_time())
            home.drain()

    gc.disable()  # one collection in a process that has run many tests takes half a second
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            published = await job.end()
            nursery.cancel_scope.cancel()
    finally:
        gc.enable()
    between = [after - before for before, after in itertools.pairwise(turns)]
    assert max(between) < (turns[-1] - turns[0]) / 3, f"a slice takes {SLICE_S} s"
    assert published.number == home.drain()
    assert await agrees_with_the_disk(home, root)


async def test_each_part_of_a_publication_lets_other_tasks_run(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publication, "SLICE_S", 0.0)
    job = Job(home, root)
    for number in range(200):
        job.write(f"f{number}", b"%d" % number)
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await job.end()
        nursery.cancel_scope.cancel()
    # Look at the file, stage it, find its step, record the step, carry it out.
    assert turns > 4.5 * len(job.changes)


@pytest.mark.parametrize("rounds", [1, publication.SLICED_ROUNDS])
async def test_what_others_make_while_the_steps_are_found_is_kept(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    monkeypatch.setattr(publication, "SLICE_S", 0.0)
    (root / "d").mkdir()
    for number in range(50):
        (root / "d" / f"f{number}").touch()
    await serve(home, root, root / "d")
    find_steps = Preparation.find_steps
    made = itertools.count()

    def find_and_make(self: Preparation, contents: Contents) -> Iterator[None]:
        yield from find_steps(self, contents)
        if (number := next(made)) < rounds:
            yield
            (root / "d" / f"new{number}").write_text("somebody's")

    monkeypatch.setattr(Preparation, "find_steps", find_and_make)
    job = Job(home, root)
    for number in range(50):
        job.delete(f"d/f{number}")
    await job.delete("d").write("other", b"x").end()
    assert sorted(os.listdir(root / "d")) == [f"new{number}" for number in range(rounds)]
    assert (root / "other").read_bytes() == b"x"


@pytest.mark.logs("plan-discarded")
async def test_the_next_master_changes_nothing_where_a_user_has(
    tmp_path: Path, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    changed = 0
    for last in range(2, 30, 3):
        root = tmp_path / f"tree{last}"
        root.mkdir()
        fill(root)
        home = new_master(root)
        await publish_until_killed(home, await a_job_of_every_kind(home, root), calls, last, first=PLAN)
        die(home)
        if not (root / "moved/1").exists():
            break
        (root / "moved/1").write_text("edited")
        found = picture(root)
        new_master(root).close()
        changed += 1
        assert picture(root) == found
    assert changed > 3
    assert "plan-discarded" in caplog.text and "moved has changed since" in caplog.text
    caplog.clear()


@pytest.mark.logs("plan-discarded", "job-half-published")
@pytest.mark.parametrize("end", ["the master gave up", "the master was killed, and a user has changed a file"])
async def test_a_launcher_that_asks_late_hears_what_was_written_and_what_was_not(
    root: Path, calls: Calls, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    home, said = new_master(root), list[str]()
    (root / "last").write_text("")
    await serve(home, root)
    job = Job(home, root).write("first", b"1").write("second", b"2").delete("last")
    if end == "the master gave up":
        calls.arm(2, EACCES, first="rename")
        with pytest.raises(HalfPublished):
            await job.end(ticket=ticket(os.getpid()))
        calls.arm(0)
        die(home)
    else:
        await publish_until_killed(home, job, calls, 2, os.getpid(), first="rename")
        die(home)
        (root / "last").write_text("edited")
        new_master(root).close()
        assert "last has changed since" in caplog.text
    assert finish_job(root, TOKEN, said.append, 0) == JobEnd(TOKEN, os.getpid(), 101, 0, b"stdin_offset=1\0")
    assert said[1:] == ["written: first", "not written: second, last"]
    assert not (root / "second").exists() and (root / "first").read_bytes() == b"1"


async def test_what_a_living_master_has_staged_is_left_alone(home: MasterTree, root: Path) -> None:
    writer = home.staging_file()
    writer.write(b"half")
    (root / ".termite-staging" / "rubbish").write_bytes(b"of a killed master")
    other = new_master(root)
    assert len(staged_names(root)) == 1
    os.close(other._staging.plan._fd)
    writer.discard()


async def test_a_sweep_leaves_alone_what_a_living_master_has_and_a_launcher_may_ask_for(root: Path) -> None:
    home = new_master(root)
    writer = home.staging_file()
    writer.write(b"half")
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    assert not clear_abandoned_tree(top)
    assert len(staged_names(root)) == 1
    writer.discard()
    await serve(home, root)
    await Job(home, root).write("f", b"1").end(ticket=ticket(os.getpid()))
    die(home)
    assert not clear_abandoned_tree(top), "its launcher lives, and has heard of no end"
    assert finish_job(root, TOKEN, print, 0) == ticket(os.getpid()).end
    assert clear_abandoned_tree(top)
    assert not (root / ".termite-staging").exists()
    os.close(top)


async def test_a_sweep_keeps_the_lock_of_a_plan_until_the_plan_is_removed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    die(new_master(root))
    others: list[bool] = []

    def try_to_lock_and_remove(parent: int, name: bytes) -> None:
        if name.startswith(b"plan-"):
            fd = os.open(name, os.O_RDWR, dir_fd=parent)
            others.append(lock(fd, wait=False))
            os.close(fd)
        remove_beneath(parent, name)

    monkeypatch.setattr("termite.engine.tree.publishing.orphaned_plans.remove_beneath", try_to_lock_and_remove)
    sweep_up(root)
    assert others == [False]


@pytest.mark.logs("plan-discarded")
async def test_a_discarded_plan_leaves_no_copies_beside_its_places(tmp_path: Path, calls: Calls) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    fill(root)
    home = new_master(root)
    await publish_until_killed(home, await a_job_of_every_kind(home, root), calls, 6, first=PLAN)
    die(home)
    (name,) = (name for name in staged_names(root) if name.endswith(".1"))
    label = name.partition(".")[0]
    near = [root / os.fsdecode(near_name(b"%b.%d" % (label.encode(), number))) for number in range(40)]
    for path in near:  # some of them are those of entries at the top of the tree
        path.touch()
    (root / "moved/1").write_text("edited")
    sweep_up(root)
    assert sum(path.exists() for path in near) < 40
    assert sorted(staged_names(root)) == ["discarded"], "for the next master"
    home = new_master(root)
    while home.discarded:
        home.discarded.take()
    home.close()
    assert not (root / ".termite-staging").exists()


@pytest.mark.logs("plan-discarded")
async def test_a_plan_of_an_earlier_start_of_the_machine_is_not_carried_out(
    root: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(root)
    home = new_master(root)
    home._staging.plan._boot_id = b"0" * 36
    await publish_until_killed(home, await a_job_of_every_kind(home, root), calls, 16, first=PLAN)
    found = picture(root)
    die(home)
    new_master(root).close()
    assert picture(root) == found
    assert "plan-discarded" in caplog.text and "the machine was started again" in caplog.text
    caplog.clear()


async def test_a_plan_that_a_launcher_may_ask_for_is_not_listed_by_git(root: Path) -> None:
    """The file that hides the directory goes with the last plan in it."""
    home = MasterTree(TreeConfig(tree_path(root)))
    await serve(home, root)
    staging = root / ".termite-staging"
    assert (staging / ".gitignore").read_bytes() == b"*\n"
    await Job(home, root).write("made", b"text").end(ticket=ticket(os.getpid()))
    home.close()
    kept = sorted(os.listdir(staging))
    assert kept[0] == ".gitignore" and [name[:5] for name in kept[1:]] == ["plan-"], kept
    assert finish_job(root, TOKEN, print, 0) is not None
    assert not staging.exists()
