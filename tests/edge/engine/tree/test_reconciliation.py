"""Test that a result never takes the place of what others wrote to its files meanwhile."""

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import trio
import trio.testing

from termite.engine.errors import Conflict
from termite.engine.model import Attr, BaseVersion, Change
from termite.engine.tree import late_writes
from termite.engine.tree.master_tree import MasterTree
from termite.engine.tree.publishing import publication, reconciliation
from termite.engine.tree.publishing.preparation import Contents, Preparation
from termite.engine.tree.publishing.publication import NOBODY, Ticket
from tests.edge.engine.tree.tree_jobs import Job, agrees_with_the_disk, digest_of, serve, staged_names, tree_path

NOTHING = BaseVersion(-1)


class Writing(Job):
    """A job that changes files in place."""

    def rewrite(self, name: str, base: bytes | None, content: bytes | Path, digest_from: bytes = b"") -> "Writing":
        whole = content if isinstance(content, bytes) else digest_from
        digest = digest_of(whole)
        self.contents[digest.sha256] = content
        attr = Attr(stat.S_IFREG | 0o644, digest.size, time.time_ns(), digest)
        return self._based(name, attr, base)

    def remove(self, name: str, base: bytes) -> "Writing":
        return self._based(name, None, base)

    def _based(self, name: str, attr: Attr | None, base: bytes | None) -> "Writing":
        version = NOTHING if base is None else BaseVersion(len(base), 1, digest_of(base))
        self.changes.append(Change(tree_path(self.root / name), attr, base=version))
        return self


async def conflict_of(job: Job, ticket: Ticket = NOBODY) -> Conflict:
    with pytest.raises(Conflict) as raised:
        await job.end(ticket=ticket)
    assert staged_names(job.root) == []
    return raised.value


async def test_a_version_that_is_still_there_is_replaced(home: MasterTree, root: Path) -> None:
    (root / "f").write_bytes(b"5")
    await serve(home, root)
    await Writing(home, root).rewrite("f", b"5", b"6").end()
    job = Writing(home, root).rewrite("f", b"6", b"7")
    (root / "f").write_bytes(b"6")  # written again, with the same content
    await job.end()
    assert (root / "f").read_bytes() == b"7"


@pytest.mark.parametrize("there", [b"6", b"7", b"10"])
async def test_a_counter_that_others_raised_is_not_set_back(home: MasterTree, root: Path, there: bytes) -> None:
    (root / "f").write_bytes(b"5")
    await serve(home, root)
    job = Writing(home, root).rewrite("f", b"5", b"6").rewrite("other", None, b"x")
    (root / "f").write_bytes(there)
    conflict = await conflict_of(job)
    assert conflict.paths == (tree_path(root / "f"),)
    assert conflict.derived == (tree_path(root / "f"), tree_path(root / "other"))
    assert (root / "f").read_bytes() == there
    assert not (root / "other").exists(), "nothing of the result is published"


@pytest.mark.parametrize("there", [None, b"", b"local\n"])
async def test_a_file_that_has_got_another_name_is_not_replaced(
    home: MasterTree, root: Path, there: bytes | None
) -> None:
    """The other name would keep the old file."""
    await serve(home, root)
    await Job(home, root).write("log", b"first\n").end()
    job = Writing(home, root).rewrite("log", b"first\n", b"first\nremote\n")
    os.link(root / "log", root / "name")
    if there is not None:
        (root / "name").write_bytes(b"first\n" + there)
    conflict = await conflict_of(job)
    assert conflict.paths == (tree_path(root / "log"),)
    assert (root / "log").samefile(root / "name")
    content = (root / "name").read_bytes()
    await Writing(home, root).remove("log", content).end()
    assert (root / "name").read_bytes() == content


async def test_both_tails_come_home_whoever_wrote_the_other(home: MasterTree, root: Path) -> None:
    (root / "log").write_bytes(b"first\n")
    await serve(home, root)
    one = Writing(home, root).rewrite("log", b"first\n", b"first\none\n")
    two = Writing(home, root).rewrite("log", b"first\n", b"first\ntwo\n")
    with (root / "log").open("ab") as log:
        log.write(b"local\n")
    assert (await one.end()).appended == (tree_path(root / "log"),)
    published = await two.end()
    assert (published.appended, published.conflicts) == ((tree_path(root / "log"),), ())
    assert (root / "log").read_bytes() == b"first\nlocal\none\ntwo\n"
    assert await agrees_with_the_disk(home, root)
    _, _, children = await home.directory(tree_path(root))
    assert children[b"log"].digest == digest_of(b"first\nlocal\none\ntwo\n"), "it is not hashed again"
    assert staged_names(root) == []


async def test_a_file_that_was_appended_to_is_never_older_than_before(home: MasterTree, root: Path) -> None:
    (root / "log").write_bytes(b"first\n")
    await serve(home, root)
    job = Writing(home, root).rewrite("log", b"first\n", b"first\none\n")
    with (root / "log").open("ab") as log:
        log.write(b"local\n")
    before_ns = (root / "log").stat().st_mtime_ns
    await job.end()
    assert (root / "log").stat().st_mtime_ns >= before_ns


async def test_large_tails_are_joined_from_staged_files(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "READ_AT_ONCE_BYTES", 1000)
    first = os.urandom(3_000_000)
    (root / "log").write_bytes(first)
    await serve(home, root)
    job = Writing(home, root)
    writer = home.staging_file()
    writer.write(first + b"job")
    staged = writer.finish(digest_of(first + b"job"))
    job.rewrite("log", first, staged, first + b"job")
    (root / "log").write_bytes(first + b"local")
    await job.end()
    assert sha256((root / "log").read_bytes()).digest() == sha256(first + b"localjob").digest()
    assert staged_names(root) == []


@pytest.mark.parametrize(
    ("there", "result"), [(b"FIRST\nlocal\n", b"first\njob\n"), (b"first\nlocal\n", b"FIRST\njob\n")]
)
async def test_what_only_looks_longer_is_no_tail(home: MasterTree, root: Path, there: bytes, result: bytes) -> None:
    (root / "log").write_bytes(b"first\n")
    await serve(home, root)
    job = Writing(home, root).rewrite("log", b"first\n", result)
    (root / "log").write_bytes(there)
    await conflict_of(job)
    assert (root / "log").read_bytes() == there


async def test_two_jobs_that_make_one_file_do_not_lose_one(home: MasterTree, root: Path) -> None:
    await serve(home, root)
    one = Writing(home, root).rewrite("log", None, b"line\n").rewrite("stamp", None, b"")
    two = Writing(home, root).rewrite("log", None, b"line\n").rewrite("stamp", None, b"")
    await one.end()
    assert (await conflict_of(two)).paths == (tree_path(root / "log"),)


@pytest.mark.parametrize("change", [b"changed", None])
async def test_a_removal_removes_only_what_the_job_saw(home: MasterTree, root: Path, change: bytes | None) -> None:
    (root / "f").write_bytes(b"seen")
    await serve(home, root)
    job = Writing(home, root).remove("f", b"seen")
    if change is None:
        (root / "f").unlink()
        await job.end()
        assert not (root / "f").exists()
        return
    (root / "f").write_bytes(change)
    await conflict_of(job)
    assert (root / "f").read_bytes() == change
    await Writing(home, root).remove("f", change).end()
    assert not (root / "f").exists()


@pytest.mark.parametrize("base", [b"seen", None])
async def test_a_directory_that_went_takes_no_old_version_back(
    home: MasterTree, root: Path, base: bytes | None
) -> None:
    (root / "d").mkdir()
    (root / "d" / "f").write_bytes(b"seen")
    await serve(home, root, root / "d")
    job = Writing(home, root).rewrite("d/f", b"seen", b"seen and more")
    (root / "d" / "f").unlink()
    (root / "d").rmdir()
    if base is None:
        (root / "d").mkdir()
    await conflict_of(job)
    assert not (root / "d" / "f").exists()


async def test_a_write_after_the_first_look_is_noticed(home: MasterTree, root: Path) -> None:
    (root / "f").write_bytes(b"5")
    await serve(home, root)
    job = Writing(home, root).rewrite("f", b"5", b"6")

    def nobody_reads_yet() -> bool:
        (root / "f").write_bytes(b"9")
        return False

    await conflict_of(job, Ticket(NOBODY.end, NOBODY.is_told, nobody_reads_yet))
    assert (root / "f").read_bytes() == b"9"


async def test_a_file_that_changes_while_it_is_read_is_a_conflict(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "READ_AT_ONCE_BYTES", -1)
    (root / "log").write_bytes(b"first\n")
    await serve(home, root)
    job = Writing(home, root).rewrite("log", b"first\n", b"first\njob\n")
    real: Callable[..., object] = trio.to_thread.run_sync

    async def read_slowly(function: Callable[[], object]) -> object:
        found = function()
        with (root / "log").open("ab") as log:
            log.write(b"more\n")
        return found

    with (root / "log").open("ab") as log:
        log.write(b"local\n")
    monkeypatch.setattr(trio.to_thread, "run_sync", read_slowly)
    await conflict_of(job)
    monkeypatch.setattr(trio.to_thread, "run_sync", real)
    assert (root / "log").read_bytes() == b"first\nlocal\n" + b"more\n" * reconciliation.ROUNDS


async def test_a_file_that_a_program_has_open_for_writing_is_not_replaced(home: MasterTree, root: Path) -> None:
    (root / "log").write_bytes(b"first\n")
    await serve(home, root)
    with (root / "log").open("ab"):
        await conflict_of(Writing(home, root).rewrite("log", b"first\n", b"first\njob\n"))
    with (root / "log").open("rb"):
        await Writing(home, root).rewrite("log", b"first\n", b"first\njob\n").end()
    assert (root / "log").read_bytes() == b"first\njob\n"


async def test_a_held_file_is_a_conflict_until_it_is_released(home: MasterTree, root: Path) -> None:
    (root / "f").write_bytes(b"5")
    await serve(home, root)
    one = home.hold([tree_path(root / "f")])
    two = home.hold([tree_path(root / "f"), tree_path(root / "g")])
    for release in (one, one, two):
        assert (await conflict_of(Writing(home, root).rewrite("f", b"5", b"6"))).is_held
        await Writing(home, root).rewrite("other", None, b"").end()
        release()
    await Writing(home, root).rewrite("f", b"5", b"6").end()
    assert (root / "f").read_bytes() == b"6"


async def test_nothing_is_hashed_if_nobody_else_wrote(home: MasterTree, root: Path) -> None:
    (root / "f").write_bytes(b"5")
    await serve(home, root)
    await Writing(home, root).rewrite("f", b"5", b"6").remove("gone", b"x").end()
    assert home.statistics()["hashed"] == 0


async def test_what_a_program_makes_while_the_steps_are_found_is_not_removed(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "d").mkdir()
    (root / "d" / "f").write_bytes(b"1")
    (root / "log").write_bytes(b"5")
    await serve(home, root, root / "d")
    job = Writing(home, root).rewrite("log", b"5", b"6").delete("d/f", "d")
    find_steps = Preparation.find_steps

    def find_and_make(self: Preparation, contents: Contents) -> Iterator[None]:
        yield from find_steps(self, contents)
        (root / "d").mkdir(exist_ok=True)
        (root / "d" / "new").write_bytes(b"somebody's")

    monkeypatch.setattr(Preparation, "find_steps", find_and_make)
    await job.end()
    assert os.listdir(root / "d") == ["new"]
    assert (root / "log").read_bytes() == b"6"


async def test_a_file_of_a_large_result_that_a_program_opens_late_is_not_replaced(
    home: MasterTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publication, "SLICE_S", 0.0)
    job = Writing(home, root)
    for number in range(late_writes.KEPT_FILES + 20):
        (root / f"f{number}").write_bytes(b"5")
        job.rewrite(f"f{number}", b"5", b"6")
    await serve(home, root)
    job.number = home.drain()
    with contextlib.ExitStack() as opened:

        def opens_the_last() -> bool:
            opened.enter_context((root / f"f{number}").open("r+b"))
            return True

        ticket = Ticket(NOBODY.end, NOBODY.is_told, opens_the_last)
        assert (await conflict_of(job, ticket)).paths == (tree_path(root / f"f{number}"),)
    assert (root / f"f{number}").read_bytes() == b"5"


async def test_a_reader_that_stands_still_keeps_no_other_job_from_its_results(home: MasterTree, root: Path) -> None:
    """The output of a job is shown before its plan is written, but nobody waits in the turn."""
    (root / "log").write_bytes(b"5")
    await serve(home, root)
    reads, shown, text = trio.Event(), list[bool](), b"fetched" * 1000
    writer = home.staging_file()
    writer.write(text)
    job = Writing(home, root).rewrite("log", b"5", b"6").write("fetched", text).write("twice", text).write("d", b"d")
    digest = digest_of(text)
    job.contents[digest.sha256] = writer.finish(digest)

    def show() -> bool:
        shown.append(reads.is_set())
        return reads.is_set()

    ticket = Ticket(NOBODY.end, NOBODY.is_told, show, reads.wait)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(job.end, 0, ticket)
        while not shown:
            await trio.lowlevel.checkpoint()
        await Writing(home, root).rewrite("other", None, b"o").end()
        assert (root / "other").read_bytes() == b"o" and not ticket.has_happened
        assert (root / "log").read_bytes() == b"5" and not (root / "d").exists()
        reads.set()
    assert shown == [False, True] and (root / "log").read_bytes() == b"6"
    assert (root / "fetched").read_bytes() == (root / "twice").read_bytes() == text
    assert staged_names(root) == [] and await agrees_with_the_disk(home, root)


async def test_a_job_that_is_cancelled_while_its_reader_stands_still_leaves_no_trace(
    home: MasterTree, root: Path
) -> None:
    await serve(home, root)
    writer = home.staging_file()
    writer.write(b"text")
    job = Writing(home, root).write("fetched", b"text")
    job.contents[digest_of(b"text").sha256] = writer.finish(digest_of(b"text"))
    ticket = Ticket(NOBODY.end, NOBODY.is_told, lambda: False, trio.sleep_forever)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(job.end, 0, ticket)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert staged_names(root) == [] and not (root / "fetched").exists()
