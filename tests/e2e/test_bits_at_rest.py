"""Change bits in the store of a real mirror: no job may ever see them, and the log has one line."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from termite.engine.errors import Retryable
from termite.engine.model import Attr, Change, Changeset, Digest, StoreLimits
from termite.engine.wire.protocol.messages import INLINE_BYTES, Directory, GetBlob
from tests.e2e.mirror_places import STARTERS, mirror_place
from tests.e2e.mirrors import FakeMaster, Starter, attr_of, mirror, read_whole, unpacked
from tests.e2e.waiting import wait_until

HEADER = b"#define X 2\n"
SOURCE = b'#include "h.h"\n#include "large.h"\nint x = X, y = Y;\n'
LARGE = b"/* %s */\n#define Y 5\n" % (b"y" * 300_000)  # hashed in a thread, and opened instead of kept


class HashingMaster(FakeMaster):
    """A master whose listings have the digests of its project's files, as a real one's have."""

    def _directory(self, path: bytes) -> Directory:
        directory = super()._directory(path)
        if path != self.writable_root:
            return directory
        children = {name: self.hashed(name, attr) for name, attr in directory.children.items()}
        return msgspec.structs.replace(directory, children=children)

    def hashed(self, name: bytes, attr: Attr) -> Attr:
        if not stat.S_ISREG(attr.mode):
            return attr
        content = read_whole(os.path.join(os.fsencode(self.project), name))
        return msgspec.structs.replace(attr, digest=digest_of(content))

    def journal_hashed(self, name: str) -> None:
        """Journal a file of the project as a job's result, with a digest that the master knows."""
        path = os.fsencode(self.project / name)
        self.number += 1
        attr = self.hashed(os.fsencode(name), attr_of(path))
        self.journal.append(Changeset(self.number, (Change(path[1:], attr),)))


def digest_of(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).digest(), len(content))


def blob_of(place: Path, content: bytes) -> Path:
    name = digest_of(content).sha256.hex()
    return place / "cache" / "cas" / name[:2] / name[2:]


def flip(place: Path, content: bytes, before: bytes, after: bytes) -> None:
    """Change the blob of `content` on the disk, and keep its size."""
    blob = blob_of(place, content)
    assert blob.read_bytes() == content
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.write(content.replace(before, after))
    assert blob.stat().st_size == len(content)


def bad_blobs(log: str) -> list[str]:
    return [line for line in log.splitlines() if "store-blob-bad" in line]


@pytest.fixture
def place() -> Iterator[Path]:
    with mirror_place() as path:
        yield path


@pytest.fixture
def master(place: Path) -> HashingMaster:
    for name, content in (("h.h", HEADER), ("large.h", LARGE), ("a.c", SOURCE)):
        (place / "project" / name).write_bytes(content)
    return HashingMaster(place / "project")


def again(master: HashingMaster) -> HashingMaster:
    """Return the master that has the next lease."""
    return HashingMaster(master.project)


async def compiled(master: HashingMaster) -> bytes:
    """Compile, and return the assembler text that comes out."""
    return await master.said("gcc", "-S", "-o", "/dev/stdout", "a.c")


@pytest.mark.parametrize("which", ["small", "large"])
async def test_a_bit_that_flips_between_two_leases_is_never_compiled(
    place: Path, master: HashingMaster, which: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with mirror(master, place):
        right = await compiled(master)
    assert b".long\t2" in right and b".long\t5" in right
    if which == "small":
        flip(place, HEADER, b"X 2", b"X 3")
    else:
        flip(place, LARGE, b"Y 5", b"Y 4")
    for _ in range(2):
        master = again(master)
        async with mirror(master, place):
            for _ in range(3):
                assert await compiled(master) == right
    (line,) = bad_blobs(capfd.readouterr().err)
    assert line.endswith("reason=content")


async def test_a_bit_that_flips_during_a_lease_is_found_by_the_first_job_that_reads_it(
    place: Path, master: HashingMaster, capfd: pytest.CaptureFixture[str]
) -> None:
    async with mirror(master, place):
        right = await compiled(master)
    master = again(master)
    async with mirror(master, place):
        await master.said("cat", "a.c")
        await master.said("ls", "-l")
        flip(place, HEADER, b"X 2", b"X 3")
        for _ in range(3):
            assert await compiled(master) == right
    assert len(bad_blobs(capfd.readouterr().err)) == 1


async def test_a_bad_bit_in_a_result_is_not_seen_by_the_next_job(
    place: Path, master: HashingMaster, capfd: pytest.CaptureFixture[str]
) -> None:
    """The next job finds the result in a real layer, which is made from the store."""
    content = b"made" * INLINE_BYTES
    async with mirror(master, place):
        await master.run("sh", "-c", f"yes made | head -n {INLINE_BYTES} | tr -d '\\n' > made")
        (master.project / "made").write_bytes(content)
        master.journal_hashed("made")
        flip(place, content, b"made", b"Made")
        for _ in range(3):
            assert await master.said("cat", "made") == content
    assert len(bad_blobs(capfd.readouterr().err)) == 1


async def test_a_result_with_a_bad_bit_is_not_sent_to_the_master(
    place: Path, master: HashingMaster, capfd: pytest.CaptureFixture[str]
) -> None:
    content = b"made" * INLINE_BYTES
    async with mirror(master, place):
        await master.run("sh", "-c", f"yes made | head -n {INLINE_BYTES} | tr -d '\\n' > made")
        flip(place, content, b"made", b"Made")
        with pytest.raises(Retryable):
            await master.connection.request(GetBlob(digest_of(content)))
        ran = await master.run("sh", "-c", f"yes made | head -n {INLINE_BYTES} | tr -d '\\n' > made")
        assert [change.attr.digest for change in ran.changes if change.attr] == [digest_of(content)]
        received: list[bytes] = []

        async def take(chunk: bytes) -> None:
            received.append(unpacked(chunk))

        await master.connection.request(GetBlob(digest_of(content)), on_chunk=take)
        assert b"".join(received) == content
    assert len(bad_blobs(capfd.readouterr().err)) == 1


async def test_a_truncated_blob_is_fetched_again_and_said(
    place: Path, master: HashingMaster, capfd: pytest.CaptureFixture[str]
) -> None:
    async with mirror(master, place):
        right = await compiled(master)
    blob = blob_of(place, HEADER)
    blob.chmod(0o644)
    os.truncate(blob, 3)
    master = again(master)
    async with mirror(master, place):
        assert await compiled(master) == right
    (line,) = bad_blobs(capfd.readouterr().err)
    assert line.endswith("reason=size")


@pytest.mark.parametrize("starter", STARTERS.values(), ids=STARTERS.keys())
async def test_what_one_mirror_has_verified_the_next_one_does_not_hash_again(
    place: Path, master: HashingMaster, starter: Starter
) -> None:
    async with mirror(master, place, starter):
        right = await compiled(master)
    blob = blob_of(place, LARGE)
    os.utime(blob)  # as if the machine had booted since
    times = [blob.stat().st_mtime_ns]
    for _ in range(2):
        master = again(master)
        async with mirror(master, place, starter):
            assert await compiled(master) == right
        times.append(blob.stat().st_mtime_ns)
    assert times[0] != times[1], "the first one has hashed and marked it"
    assert times[1] == times[2], "the second one has not"


async def test_a_bad_bit_is_found_although_nobody_reads_it(
    place: Path, master: HashingMaster, capfd: pytest.CaptureFixture[str]
) -> None:
    async with mirror(master, place):
        assert await master.said("cat", "h.h") == HEADER
        flip(place, HEADER, b"X 2", b"X 3")
        await trio.to_thread.run_sync(wait_until, lambda: not blob_of(place, HEADER).exists(), "a scrub")
        assert await master.said("cat", "h.h", "a.c") == HEADER + SOURCE
    assert len(bad_blobs(capfd.readouterr().err)) == 1


@pytest.mark.parametrize(
    "limits", [StoreLimits(max_files=50), StoreLimits(max_bytes=200 * 1024)], ids=["files", "bytes"]
)
async def test_a_mirror_keeps_the_store_within_its_limits(
    place: Path, master: HashingMaster, limits: StoreLimits
) -> None:
    """Two hundred results, of which each takes a block of 4 KiB."""
    async with mirror(master, place, store=limits):
        await master.run("sh", "-c", "for n in $(seq 200); do echo $n > result$n; done")
        stamp = place / "cache" / "cas" / "evicted"
        await trio.to_thread.run_sync(wait_until, stamp.exists, "an eviction")
        assert 20 <= len(list((place / "cache" / "cas").glob("??/*"))) <= 50
        assert await master.said("cat", "a.c") == SOURCE
