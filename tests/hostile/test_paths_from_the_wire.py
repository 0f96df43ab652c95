"""A hostile master names paths that lead out of its tree, in changes, in listings, with a command.

With such a path the mirror wrote a setuid file of the master's choice outside of its scratch space.
"""

import contextlib
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from termite.engine.errors import ConnectionLost, Retryable, UserError
from termite.engine.host.process_state import children_of
from termite.engine.model import Attr, Change, Changeset
from termite.engine.wire.protocol.messages import Directory
from tests.e2e.mirrors import Starter, mirror
from tests.hostile.masters import STARTERS, HostileMaster, attacked_place, listed

PATIENCE_S = 30
CONTENT = b"#!/bin/sh\nid\n"
DIRECTORY = Attr(stat.S_IFDIR | 0o755, 0, 1)
SETUID = Attr(stat.S_IFREG | 0o4755, len(CONTENT), 10**9)
PLAIN = Attr(stat.S_IFREG | 0o755, len(CONTENT), 10**9)
LINK = Attr(stat.S_IFLNK | 0o777, 0, 10**9, target=b"/home/victim/.bashrc")
ENDED = (ConnectionLost, UserError)


class RootMaster(HostileMaster):
    """Its writable root is the whole tree. A directory called odd is listed with `odd` names."""

    odd: dict[bytes, Attr] = {}  # noqa: RUF012  # a test sets it

    def lease(self) -> Any:
        self.writable_root = b""
        return super().lease()

    def _directory(self, path: bytes) -> Directory:
        listing = super()._directory(path)
        if path == b"":
            listing.children.pop(b"tmp", None)  # so that a change can make it
        if os.path.basename(path) == b"odd":
            listing.children.update(self.odd)
        return listing


@pytest.fixture
def name() -> Iterator[str]:
    """Yield a name that nobody uses in the directories where all may write."""
    name = f"termite-attack-{uuid.uuid4().hex}"
    yield name
    for directory in ("/tmp", "/var/tmp"):
        for path in Path(directory).glob(f"{name}*"):
            path.unlink()


def changes_with(path: bytes) -> tuple[Change, ...]:
    """Return changes that make a path and the directories above it."""
    steps = path.split(b"/")
    above = [b"/".join(steps[:end]) for end in range(1, len(steps))]
    return (*(Change(step, DIRECTORY) for step in above if step), Change(path, SETUID), Change(path + b"-link", LINK))


CHANGED = {
    "absolute": "/tmp/{name}",
    "two slashes": "//tmp/{name}",
    "a slash inside": "tmp//{name}",
    "upwards": "../../../../../../../../tmp/{name}",
    "upwards from a directory": "new/../../../../../../../../../tmp/{name}",
    "a dot": "./{name}",
    "a NUL": "{name}\0x",
    "a slash at the end": "{name}/",
    "a name too long": "n" * 5000,
    "a path too long": "{name}" + "/a" * 100_000,
}


@pytest.mark.parametrize("starter", STARTERS)
@pytest.mark.parametrize("path", CHANGED.values(), ids=CHANGED.keys())
async def test_a_path_out_of_the_tree_in_a_change_ends_the_connection(starter: Starter, path: str, name: str) -> None:
    odd = path.format(name=name).encode()
    with attacked_place(starter) as base:
        before = listed(base / "home")
        master = RootMaster(base / "project")
        with trio.fail_after(PATIENCE_S):
            async with mirror(master, base / "place", starter, tmpfs=False):
                assert await master.said("echo", "served") == b"served\n"
                changes = changes_with(odd) if odd.count(b"/") < 100 else (Change(odd, SETUID),)
                master.number += 1
                master.journal.append(Changeset(master.number, changes))
                with pytest.raises(ENDED):
                    await master.run("/bin/true", contents={odd: CONTENT})
                with pytest.raises(ENDED):
                    await master.run("/bin/true")
        assert not [path for top in ("/tmp", "/var/tmp", "/") for path in os.listdir(top) if path.startswith(name)]
        assert listed(base / "home") == before
        print("HELD", path[:60])


@pytest.mark.parametrize("starter", STARTERS)
@pytest.mark.parametrize("odd", [b"../x", b"/tmp/x", b"a/b", b"", b"..", b".", b"x\0y", b"n" * 5000])
async def test_an_odd_name_in_a_listing_ends_the_connection(starter: Starter, odd: bytes) -> None:
    with attacked_place(starter) as base:
        (base / "project/odd").mkdir()
        (base / "project/even").mkdir()
        before = listed(base / "home")
        master = RootMaster(base / "project")
        master.odd = {odd: PLAIN}
        with trio.fail_after(PATIENCE_S):
            async with mirror(master, base / "place", starter, tmpfs=False):
                assert await master.said("ls", "even") == b""
                with pytest.raises((Retryable, UserError)):
                    await master.run("ls", "odd")
                with pytest.raises(ENDED):
                    while True:  # the job may be given back just before the connection ends
                        await master.run("ls", "even")
        assert listed(base / "home") == before
        print("HELD", odd[:20])


@pytest.mark.parametrize("starter", STARTERS)
async def test_odd_paths_where_nothing_is_looked_up_by_them_are_harmless(starter: Starter, name: str) -> None:
    with attacked_place(starter) as base:
        (base / "project/f").write_text("old")
        master = HostileMaster(base / "project")
        odd = [b"/tmp/" + name.encode(), b"../../../../tmp/" + name.encode(), b"", b"..", b"a\0b", b"n" * 10_000]
        async with mirror(master, base / "place", starter, tmpfs=False):
            assert await master.said("cat", "f", contents=dict.fromkeys(odd, CONTENT)) == b"old"
            assert await master.said("pwd", cwd=b"/../../../../usr") == b"/usr\n"
            with pytest.raises(Retryable):
                await master.run("pwd", cwd=b"/" + b"d" * 5000)
            with pytest.raises(Retryable):
                await master.run("pwd", cwd=b"/" + b"d/" * 5000)
            with pytest.raises(ENDED):
                await master.run("pwd", cwd=b"usr")
        assert name not in os.listdir("/tmp")
        print("HELD")


def files_in(directory: Path) -> list[Path]:
    """Return all files below a directory, from which the mirror may remove others meanwhile."""
    return [Path(place, name) for place, _, names in os.walk(directory) for name in names]


def setuid_files(directory: Path) -> list[Path]:
    """Return the regular files below a directory that are setuid or setgid."""
    found = []
    for path in files_in(directory):
        with contextlib.suppress(FileNotFoundError):
            mode = path.lstat().st_mode
            if mode & 0o6000 and stat.S_ISREG(mode):
                found.append(path)
    return found


@pytest.mark.parametrize("starter", STARTERS)
async def test_a_job_sees_setuid_bits_and_the_workers_disk_never_has_them(starter: Starter) -> None:
    """Look in the base, in a delta with the content sent along, and when the file may be warm."""
    looks = (
        "sh",
        "-c",
        "stat -c %a tool; cat tool >/dev/null; cp -p tool copy; stat -c %a copy; rm copy; id -u >/dev/null",
    )
    with attacked_place(starter) as base:
        tool = base / "project/tool"
        tool.write_bytes(CONTENT)
        tool.chmod(0o6755)
        master = HostileMaster(base / "project")
        async with mirror(master, base / "place", starter, tmpfs=False):
            for turn in range(4):
                assert await master.said(*looks) == b"6755\n6755\n"
                tool.write_bytes(CONTENT + b"%d\n" % turn)
                tool.chmod(0o6755)
                master.journal_disk(tool)
                contents = {os.fsencode(tool)[1:]: tool.read_bytes()} if turn % 2 else {}
                assert await master.said(*looks, contents=contents) == b"6755\n6755\n"
                await trio.sleep(0.7)  # for a new generation of the warm layer
                assert setuid_files(base / "place/cache") == []
                assert setuid_files(base / "place/scratch/layers") == []
            with trio.fail_after(20):  # until there is a warm layer
                while all(path.name != "id" for path in files_in(base / "place/cache/warm")):
                    await master.said(*looks)
                    await trio.sleep(0.5)
            assert setuid_files(base / "place/cache") == []
        print("HELD")


def flags_of_mounts(pid: int) -> dict[str, list[str]]:
    """Return the flags of each mount that a process sees, by its place (proc(5))."""
    return parsed_mounts(Path(f"/proc/{pid}/mountinfo").read_text())


def parsed_mounts(mountinfo: str) -> dict[str, list[str]]:
    fields = [line.split() for line in mountinfo.splitlines()]
    return {line[4]: line[5].split(",") for line in fields}


@pytest.mark.parametrize("starter", STARTERS)
async def test_no_mount_of_a_mirror_or_its_jobs_gives_rights_to_who_executes_a_file(starter: Starter) -> None:
    with attacked_place(starter) as base:
        master = HostileMaster(base / "project")
        async with mirror(master, base / "place", starter) as running:
            (child,) = children_of(running.process.pid)
            of_mirror = flags_of_mounts(child)
            of_job = parsed_mounts((await master.said("cat", "/proc/self/mountinfo")).decode())
        scratch = str(base / "place/scratch")
        for mounts, written in ((of_mirror, (scratch,)), (of_job, ("/", "/dev/shm"))):
            assert [place for place, flags in mounts.items() if "nosuid" not in flags] == []
            assert [place for place in written if "nodev" not in mounts[place]] == []
        shared = ["/dev", "/dev/pts", *(place for place in of_job if place.startswith("/sys"))]
        assert "/sys/devices/system" in shared
        assert [place for place in shared if "ro" not in of_job[place]] == [], "all jobs of a lease share them"
        print("HELD")


@pytest.mark.parametrize("starter", STARTERS)
async def test_what_a_job_makes_in_a_setgid_directory_is_as_it_would_be_at_home(starter: Starter) -> None:
    with attacked_place(starter) as base:
        shared = base / "project/shared"
        shared.mkdir()
        shared.chmod(0o2775)
        master = HostileMaster(base / "project")
        makes = ("sh", "-c", "stat -c %a shared; mkdir shared/new; touch shared/f; stat -c '%a %g' shared/new shared/f")
        expected = b"2775\n2755 %d\n644 %d\n" % (master.gid, master.gid)
        async with mirror(master, base / "place", starter, tmpfs=False):
            assert await master.said(*makes) == expected
            for turn in range(3):  # from now on in real layers
                (shared / f"{turn}").write_bytes(CONTENT)
                master.journal_disk(shared / f"{turn}", shared)
                assert await master.said(*makes, contents={os.fsencode(shared / f"{turn}")[1:]: CONTENT}) == expected
            assert [path for path in (base / "place/scratch/layers").rglob("shared") if path.stat().st_mode & 0o2000]
            ran = await master.run(*makes)
            (new,) = [change.attr for change in ran.changes if change.path.endswith(b"/new")]
            assert new is not None
            assert new.mode == stat.S_IFDIR | 0o2755
        print("HELD")
