"""A mirror process with a real mount, real sandboxes, and a fake master that can hold answers."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from termite.engine.errors import Reason, Retryable, Stale
from termite.engine.model import Change, Changeset, Exit
from termite.engine.wire.protocol.control_lines import WorkerOrder
from termite.engine.wire.protocol.messages import GetBlob
from tests.e2e.mirror_places import NOBODY, STARTERS, mirror_place
from tests.e2e.mirrors import FakeMaster, MirrorProcess, Starter, attr_of, mirror, read_whole, unpacked, write_whole


@pytest.fixture
def place() -> Iterator[Path]:
    with mirror_place() as path:
        yield path


@pytest.fixture
def master(place: Path) -> FakeMaster:
    return FakeMaster(place / "project")


async def running(process: MirrorProcess, count: int) -> None:
    with trio.fail_after(20):
        while not process.lines or process.lines[-1].get("running") != count:
            await process.said.park()


@pytest.mark.parametrize("starter", STARTERS.values(), ids=STARTERS.keys())
@pytest.mark.parametrize("tmpfs", [True, False], ids=["in memory", "on disk"])
async def test_a_compiler_runs_in_the_masters_files_and_the_second_time_asks_for_nothing(
    place: Path, master: FakeMaster, starter: Starter, tmpfs: bool
) -> None:
    (master.project / "a.c").write_text("#include <stdio.h>\nint main(void) { return puts(GREETING); }\n")
    async with mirror(master, place, starter, tmpfs=tmpfs):
        for _ in range(2):
            master.asked.clear()
            output: list[bytes] = []
            ran = await master.run("gcc", '-DGREETING="hi"', "-c", "a.c", output=output)
            assert (ran.exit, output, ran.dropped) == (Exit(0), [], ())
            assert [os.path.basename(change.path) for change in ran.changes] == [b"a.o"]
        assert not master.asked
        print("requests of a warm compile:", ran.usage.requests)


async def test_a_job_looks_as_if_it_ran_as_the_submitter(place: Path, master: FakeMaster) -> None:
    master.uid, master.gid = 4321, 1234
    (master.project / "f").write_text("x")
    async with mirror(master, place):
        said = await master.said("sh", "-c", "id -u; id -g; stat -c %u:%g f /usr; hostname", umask=0o77)
        assert said.decode().split() == ["4321", "1234", "4321:1234", "4321:1234", "home"]


async def test_every_kind_of_change_is_seen_by_the_next_job(place: Path, master: FakeMaster) -> None:
    project = master.project
    for name in ("keep/f", "gone/sub/f", "again/old", "file-dir", "dir-file/f", "dir-link/f", "deep/a/b/c/f"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(name)
    looks = ["sh", "-c", "find . | sort; cat $(find . -type f | sort); ls -lR --time-style=+%s.%N . | grep -v ^total"]

    def here() -> bytes:
        return os.popen(f"cd {project}; {looks[2]}").read().encode()

    def journal(*names: str) -> None:
        master.journal_disk(*(project / name for name in names))

    async with mirror(master, place):
        assert _same(await master.said(*looks), here())
        (project / "new").write_text("new")
        journal("new")
        assert _same(await master.said(*looks), here())
        (project / "new").unlink()
        shutil.rmtree(project / "gone")
        journal("new", "gone")
        assert _same(await master.said(*looks), here())
        shutil.rmtree(project / "again")
        journal("again")
        (project / "again").mkdir()
        journal("again")
        (project / "again/other").write_text("o")
        journal("again/other", "again")
        assert _same(await master.said(*looks), here())
        (project / "file-dir").unlink()
        (project / "file-dir").mkdir()
        (project / "file-dir/x").write_text("x")
        journal("file-dir", "file-dir/x")
        for name in ("dir-file", "dir-link"):
            shutil.rmtree(project / name)
        (project / "dir-file").write_text("file now")
        (project / "dir-link").symlink_to("keep")
        journal("dir-file", "dir-link")
        assert _same(await master.said(*looks), here())
        (project / "deep/a/b/c/f").write_text("changed")
        os.chmod(project / "keep", 0o700)
        journal("deep/a/b/c/f", "keep")
        assert _same(await master.said(*looks), here())


def _same(mirrored: bytes, local: bytes) -> bool:
    """Assert that both are equal but for the sizes and link counts of directories."""

    def normal(text: bytes) -> list[bytes]:
        lines = (line.split() for line in text.splitlines())
        return [b" ".join(w[:1] + w[5:] if w and w[0].startswith(b"d") else w[:1] + w[4:]) for w in lines]

    assert normal(mirrored) == normal(local)
    return True


async def test_a_directory_is_opened_and_copied_up_without_its_list(place: Path, master: FakeMaster) -> None:
    """Overlayfs opens a directory under a lock for which the master itself may wait."""
    (master.project / "d").mkdir()
    (master.project / "d/f").write_text("x")
    held = master.held[master.writable_root + b"/d"] = trio.Event()
    output: list[bytes] = []
    async with mirror(master, place), trio.open_nursery() as nursery:

        async def job() -> None:
            await master.run("sh", "-c", "chmod 711 d; exec 3<d; echo opened; ls d", output=output)

        nursery.start_soon(job)
        with trio.fail_after(20):
            await master.reached.wait()
            while not output:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert output == [b"1opened\n"]
        held.set()
    assert output == [b"1opened\n", b"1f\n"]


async def test_a_job_that_runs_goes_on_seeing_what_it_saw(place: Path, master: FakeMaster) -> None:
    project = master.project
    for name in ("changed", "deleted", "dir/f", "replaced/f"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("old ")
    script = "ls >/dev/null; cat */* * >/dev/null 2>&1; echo ready; read x; cat changed deleted dir/f replaced/f; ls"
    old: list[bytes] = []
    new: list[bytes] = []
    async with mirror(master, place), trio.open_nursery() as nursery:
        master.stdin = [b"go\n"]
        master.hold_stdin = trio.Event()

        async def old_job() -> None:
            await master.run("sh", "-c", script, output=old)

        nursery.start_soon(old_job)
        with trio.fail_after(20):
            await master.reached.wait()
        (project / "changed").write_text("newer")
        (project / "deleted").unlink()
        shutil.rmtree(project / "dir")
        shutil.rmtree(project / "replaced")
        (project / "replaced").write_text("file")
        master.journal_disk(*(project / name for name in ("changed", "deleted", "dir", "replaced")))
        await master.run("sh", "-c", "cat changed replaced; ls", output=new, stdin=False)
        master.hold_stdin.set()
    assert b"".join(chunk[1:] for chunk in new) == b"newerfilechanged\nreplaced\n"
    assert b"".join(chunk[1:] for chunk in old) == b"ready\nold old old old changed\ndeleted\ndir\nreplaced\n"


async def test_stdin_is_taken_only_when_it_is_read(place: Path, master: FakeMaster) -> None:
    async with mirror(master, place):
        master.stdin = [b"one\ntwo\n"]
        assert await master.said("true", stdin=True) == b""
        assert not master.stdin_sizes
        assert await master.said("cat", stdin=True) == b"one\ntwo\n"
        assert not master.stdin
        assert await master.said("wc", "-c", stdin=False) == b"0\n"
        master.stdin = [b"int x;\n", b"int y;\n"]
        assert b"int y" in await master.said("gcc", "-E", "-x", "c", "-", stdin=True)


async def test_a_job_can_be_cancelled_while_it_waits_for_the_network(place: Path, master: FakeMaster) -> None:
    (master.project / "slow").mkdir()
    (master.project / "slow/f").write_text("f")
    held = master.writable_root + b"/slow"
    master.held[held] = trio.Event()
    async with mirror(master, place) as process, trio.open_nursery() as nursery:
        await master.said("true")

        async def blocked() -> None:
            await master.run("cat", "slow/f")

        nursery.start_soon(blocked)
        await master.reached.wait()
        await running(process, 1)
        nursery.cancel_scope.cancel()
    async with mirror(master, place) as process:
        async with trio.open_nursery() as nursery:
            master.reached = trio.Event()
            nursery.start_soon(blocked)
            await master.reached.wait()
            assert await master.said("echo", "others", "live") == b"others live\n"
            nursery.cancel_scope.cancel()
        await running(process, 0)
        master.held.clear()
        assert await master.said("cat", "slow/f") == b"f"


async def test_a_cancelled_job_passes_its_fetch_on_to_the_next_one_that_waits_for_it(
    place: Path, master: FakeMaster
) -> None:
    (master.project / "slow").mkdir()
    (master.project / "slow/f").write_text("f")
    held = master.writable_root + b"/slow"
    said: list[bytes] = []
    async with mirror(master, place) as process:
        await master.said("true")
        master.held[held] = trio.Event()
        async with trio.open_nursery() as survivors:

            async def survivor() -> None:
                said.append(await master.said("cat", "slow/f"))

            async with trio.open_nursery() as doomed:
                doomed.start_soon(master.run, "cat", "slow/f")
                await master.reached.wait()
                survivors.start_soon(survivor)
                await running(process, 2)
                doomed.cancel_scope.cancel()
            master.held.pop(held).set()
    assert said == [b"f"]


async def test_more_jobs_than_slots_wait_and_the_master_hears_of_fewer_slots(place: Path, master: FakeMaster) -> None:
    async with mirror(master, place, slots=1) as process:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(master.said, "sleep", "0.3")
        assert max(line.get("running", 0) for line in process.lines) == 1
        await process.send(WorkerOrder(slots=3))
        with trio.fail_after(10):
            while not master.slots:
                await trio.lowlevel.checkpoint()
        assert master.slots == [3]


async def test_a_file_that_changed_before_it_was_read_costs_the_job_one_more_run(
    place: Path, master: FakeMaster
) -> None:
    file = master.project / "f"
    file.write_text("old")
    async with mirror(master, place):
        await master.said("sh", "-c", "test -e f")
        file.write_text("newer")
        with pytest.raises(Stale, match="project/f"):
            await master.run("cat", "f")
        master.journal_disk(file)
        assert await master.said("cat", "f") == b"newer"


async def test_a_job_that_has_written_output_runs_again_too_if_a_file_has_changed(
    place: Path, master: FakeMaster
) -> None:
    file = master.project / "f"
    file.write_text("old")
    async with mirror(master, place):
        await master.said("sh", "-c", "test -e f")
        file.write_text("newer")
        output: list[bytes] = []
        master.stdin = [b"\n"]  # when the mirror asks for it, it has passed on all earlier output
        with pytest.raises(Stale, match="project/f"):
            await master.run("sh", "-c", "echo said; read x; cat f || true", output=output)
        assert output == [b"1said\n"]


async def test_a_job_whose_changesets_are_still_on_the_way_waits_for_them(place: Path, master: FakeMaster) -> None:
    file = master.project / "f"
    file.write_text("old")
    said: list[bytes] = []
    async with mirror(master, place):
        await master.said("cat", "f")
        file.write_text("newer")
        attr = attr_of(os.fsencode(file))
        path = os.fsencode(file)[1:]
        async with trio.open_nursery() as nursery:

            async def early() -> None:
                second = Changeset(2, (Change(master.writable_root + b"/none", None),))
                said.append(await master.said("cat", "f", number=2, changesets=(second,)))

            nursery.start_soon(early)
            await trio.lowlevel.checkpoint()
            first = Changeset(1, (Change(path, attr),))
            said.append(await master.said("cat", "f", number=1, changesets=(first,)))
    assert said == [b"newer", b"newer"]


async def test_a_result_can_be_fetched_and_is_not_fetched_again_by_the_worker_that_made_it(
    place: Path, master: FakeMaster
) -> None:
    async with mirror(master, place):
        ran = await master.run("sh", "-c", "head -c 300000 /dev/zero > big; wc -c big")
        digest = ran.changes[-1].attr and ran.changes[-1].attr.digest
        assert digest and digest.size == 300000
        received = bytearray()

        async def take(chunk: bytes) -> None:
            received.extend(unpacked(chunk))

        await master.connection.request(GetBlob(digest), on_chunk=take)
        assert bytes(received) == bytes(300000)
        master.number += 1
        master.journal.append(Changeset(master.number, ran.changes))
        master.asked.clear()
        assert await master.said("wc", "-c", "big") == b"300000 big\n"
        assert not master.asked["GetFile"]


async def test_the_mirror_ends_when_its_master_is_gone_whatever_its_jobs_do(place: Path, master: FakeMaster) -> None:
    (master.project / "slow").mkdir()
    held = master.writable_root + b"/slow"
    async with mirror(master, place) as process:
        await master.said("true")
        master.held[held] = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(master.run, "sleep", "1000")
            nursery.start_soon(master.run, "cat", "slow/f")
            await master.reached.wait()
            await running(process, 2)
            nursery.cancel_scope.cancel()
        await master.connection.close()
        with trio.fail_after(5):
            await process.wait()


async def test_names_of_any_bytes_and_special_files_are_shown(place: Path, master: FakeMaster) -> None:
    project = os.fsencode(master.project)
    for name in (b"caf\xe9", b"new\nline", "\u00fc".encode(), b"-dash"):
        write_whole(project + b"/" + name, name)
    os.mkfifo(project + b"/fifo")
    os.symlink(b"caf\xe9", project + b"/link")
    os.link(project + b"/-dash", project + b"/twin")
    async with mirror(master, place):
        assert await master.said("sh", "-c", "cat -- *e* link; test -p fifo; stat -c %h -- -dash") == (
            b"new\nlinecaf\xe92\n"
        ), "the glob matches new-line only: the others' bytes are no text in this locale"
        same = await master.said("sh", "-c", "test ./-dash -ef twin && echo same")
        assert same == b"same\n"


async def test_a_directory_of_ten_thousand_names_is_listed_whole(place: Path, master: FakeMaster) -> None:
    many = master.project / "many"
    many.mkdir()
    for number in range(10_000):
        (many / str(number)).touch()
    async with mirror(master, place):
        assert await master.said("sh", "-c", "ls many | wc -l; ls -U many | sort -u | wc -l") == b"10000\n10000\n"


async def warmed(master: FakeMaster, *argv: str, below: int) -> int:
    """Run until it costs fewer requests than `below`: a generation of the warm layer has come."""
    with trio.fail_after(30):
        while (requests := (await master.run(*argv)).usage.requests) >= below:
            pass
    return requests


async def test_settled_files_that_were_read_cost_no_requests_any_more(place: Path, master: FakeMaster) -> None:
    (master.project / "a.c").write_text("#include <stdio.h>\nint main(void) { return puts(GREETING); }\n")
    compile = ("gcc", '-DGREETING="hi"', "-c", "a.c")
    async with mirror(master, place):
        cold = await master.run(*compile)
        print("requests of a compile: cold", cold.usage.requests)
        print("requests of a compile: warm", await warmed(master, *compile, below=60))
        warm = await master.run(*compile)
        assert [c.attr and c.attr.digest for c in warm.changes] == [c.attr and c.attr.digest for c in cold.changes]


async def test_the_warm_layer_shows_what_the_mirror_shows(place: Path, master: FakeMaster) -> None:
    settled = place / "settled"
    (settled / "sub").mkdir(parents=True)
    (settled / "f").write_text("f")
    (settled / "empty").touch()
    (settled / "sub/private").write_text("p")
    (settled / "link").symlink_to("sub/private")
    os.chmod(settled / "sub/private", 0o640)
    os.chmod(settled / "f", 0o751)
    for path in (settled / "f", settled / "sub/private", settled / "sub", settled):
        os.utime(path, ns=(10**18 + 7, 10**18 + 7))
    os.chmod(settled / "sub", 0o2711)
    look = f"cd {settled}; cat f empty link; stat -c '%n %A %y' . sub; stat -c '%n %A %s %y' f empty link sub/private"
    reads = ("sh", "-c", f"cat {settled}/f {settled}/empty {settled}/link")
    async with mirror(master, place):
        before = await master.said("sh", "-c", look)
        await warmed(master, *reads, below=20)
        assert await master.said("sh", "-c", look) == before


async def test_a_settled_file_that_changed_is_not_served_from_the_warm_layer(place: Path, master: FakeMaster) -> None:
    settled = place / "settled"
    settled.mkdir()
    for name in ("changed", "deleted", "same"):
        (settled / name).write_text("old")
    reads = ("sh", "-c", f"cd {settled}; cat changed same; cat deleted 2>/dev/null || echo gone")
    async with mirror(master, place):
        assert await master.said(*reads) == b"oldoldold"
        for turn in ("one", "two"):
            await warmed(master, *reads, below=40)
            (settled / "changed").write_text(turn)
            (settled / "deleted").unlink(missing_ok=True)
            master.journal_disk(settled / "changed", settled / "deleted")
            assert await master.said(*reads) == turn.encode() + b"oldgone\n"
        await warmed(master, *reads, below=40)
        assert await master.said(*reads) == b"twooldgone\n"


async def test_nothing_is_left_where_the_mirror_was(place: Path, master: FakeMaster) -> None:
    async with mirror(master, place, tmpfs=False):
        await warmed(master, "sh", "-c", "echo x > f", below=40)
    assert sorted(path.name for path in (place / "cache").iterdir()) == ["cas", "proofs", "warm"]
    assert not list((place / "cache/warm").iterdir())
    assert not [line for line in read_whole(b"/proc/self/mountinfo").splitlines() if os.fsencode(place) in line]


HIDES_ERRORS = "echo shown; sleep 0.2; cat big > copy 2> /dev/null; ls sub > list 2> /dev/null; true"


@pytest.mark.parametrize("starter", STARTERS.values(), ids=STARTERS.keys())
@pytest.mark.parametrize("name", ["big", "sub"])
async def test_a_job_that_hides_an_error_of_ours_and_ends_well_is_given_back(
    place: Path, master: FakeMaster, starter: Starter, name: str
) -> None:
    (master.project / "big").write_text("big")
    (master.project / "sub").mkdir()
    failing = os.fsencode(master.project / name)[1:]
    async with mirror(master, place, starter):
        master.failing[failing] = Retryable(Reason.LOOK_FAILED, "big: Input/output error")
        output: list[bytes] = []
        with pytest.raises(Retryable) as caught:
            await master.run("sh", "-c", HIDES_ERRORS, output=output)
        assert caught.value.reason is Reason.LOOK_FAILED
        assert output == [b"1shown\n"], "the error came after the job had shown something"
        del master.failing[failing]
        ran = await master.run("sh", "-c", HIDES_ERRORS)
        assert sorted(os.path.basename(change.path) for change in ran.changes) == [b"copy", b"list"]


@pytest.mark.needs_root("mounts a small cache")
@pytest.mark.parametrize("uid", [None, NOBODY], ids=["by root", "by root for a user"])
async def test_a_job_that_found_the_store_full_is_given_back_whatever_it_made_of_that(
    place: Path, master: FakeMaster, uid: int | None, capfd: pytest.CaptureFixture[str]
) -> None:
    (master.project / "big").write_bytes(os.urandom(32 << 20))
    mount = f'mount -t tmpfs -o size=24m,mode=777 none {place}/cache && exec "$@"'
    starter = Starter(uid=uid, through=("unshare", "-m", "sh", "-c", mount, "sh"))
    async with mirror(master, place, starter):
        output: list[bytes] = []
        command = "echo shown; sleep 0.2; cat big 2> /dev/null | wc -c > size; true"
        with pytest.raises(Retryable) as caught:
            await master.run("sh", "-c", command, output=output)
        assert caught.value.reason is Reason.DISK_FULL
        assert output == [b"1shown\n"]
        assert await master.said("echo", "others go on") == b"others go on\n"
        with pytest.raises(Retryable):
            await master.run("sh", "-c", command)
    said = capfd.readouterr().err
    assert said.count("WARNING job-lacked-room job=") == 1 and " reason=disk-full" in said, "once a minute"
