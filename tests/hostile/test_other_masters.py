"""A master asks a worker for a content of another master, whose digest it knows."""

import hashlib
from pathlib import Path

import msgspec
import pytest

from termite.engine.errors import FsError, Reason, Retryable, UserError, first_error
from termite.engine.model import Digest
from termite.engine.wire.protocol.frames import parse_piece
from termite.engine.wire.protocol.messages import Directory, File, GetBlob, GetFile
from termite.engine.wire.transport import SendChunk
from tests.e2e.mirrors import Starter, mirror
from tests.hostile.masters import STARTERS, HostileMaster, attacked_place

SIZE = 300_000
PUBLIC = Path("/usr/bin/python3").resolve()
CONTENT = b"x" * SIZE
MAKE_RESULT = ("sh", "-c", f"head -c {SIZE} /dev/zero | tr '\\0' x >result")
RESULT = Digest(hashlib.sha256(CONTENT).digest(), SIZE)


async def fetched(master: HostileMaster) -> bytes:
    """Return the content of RESULT, as the worker sends it."""
    chunks: list[bytes] = []

    async def take(chunk: bytes) -> None:
        piece = parse_piece(chunk)
        chunks.append(bytes(piece))  # all of it is data

    await master.connection.request(GetBlob(RESULT), on_chunk=take)
    return b"".join(chunks)


class Liar(HostileMaster):
    """A master that has a digest of the file `stolen`, and none of its content."""

    claimed = RESULT
    sent = 0

    def _directory(self, path: bytes) -> Directory:
        listing = super()._directory(path)
        lies = {
            name: msgspec.structs.replace(attr, size=self.claimed.size, digest=self.claimed)
            for name, attr in listing.children.items()
            if name == b"stolen"
        }
        return msgspec.structs.replace(listing, children={**listing.children, **lies})

    async def _file(self, request: GetFile, send_chunk: SendChunk) -> File:
        if not request.path.endswith(b"/stolen"):
            return await super()._file(request, send_chunk)
        self.sent += 1
        raise FsError(5, request.path)


def is_stored(cache: Path) -> bool:
    return any(RESULT.sha256.hex()[2:] in path.name for path in cache.rglob("*"))


@pytest.mark.parametrize("starter", STARTERS)
async def test_a_result_is_given_to_the_lease_whose_job_made_it_only(starter: Starter) -> None:
    with attacked_place(starter) as base:
        owner = HostileMaster(base / "project")
        async with mirror(owner, base / "place", starter):
            await owner.run(*MAKE_RESULT)
            assert await fetched(owner) == CONTENT
        (base / "other").mkdir(mode=0o755)
        other = HostileMaster(base / "other")
        async with mirror(other, base / "place", starter):
            assert is_stored(base / "place" / "cache")
            with pytest.raises(Retryable) as refused:
                await fetched(other)
            assert refused.value.reason is Reason.RESULT_LOST
    print("HELD")


async def stolen(starter: Starter, base: Path, owner: bytes, claimed: Digest = RESULT) -> tuple[bool, int]:
    """Return whether a job of a master with this key reads a content of which it claims a digest.

    Return also how often the worker has asked for the content.
    """
    liar = Liar(base / "other")
    liar.owner, liar.claimed = owner, claimed
    output: list[bytes] = []
    async with mirror(liar, base / "place", starter):
        try:
            ran = await liar.run("sha256sum", "stolen", output=output)
        except Retryable:
            return False, liar.sent
    return ran.exit.code == 0 and claimed.sha256.hex().encode() in b"".join(output), liar.sent


@pytest.mark.parametrize("starter", STARTERS)
async def test_the_digest_of_a_content_alone_gives_nobody_the_content(starter: Starter) -> None:
    with attacked_place(starter) as base:
        (base / "other").mkdir(mode=0o755)
        (base / "other" / "stolen").write_bytes(b"x")
        (base / "project" / "private").write_bytes(b"source" * 10_000)
        sent = Digest(hashlib.sha256(b"source" * 10_000).digest(), 60_000)
        owner = HostileMaster(base / "project")
        owner.owner = b"1" * 32
        async with mirror(owner, base / "place", starter):
            await owner.run(*MAKE_RESULT)
            await owner.run("wc", "private")
        assert is_stored(base / "place" / "cache")
        for content in (RESULT, sent):
            assert await stolen(starter, base, b"2" * 32, content) == (False, 1)
            assert await stolen(starter, base, b"1" * 32, content) == (True, 0), "its own contents are there"
    print("HELD")


@pytest.mark.needs_root("it serves a file in another user's closed directory")
@pytest.mark.parametrize("starter", STARTERS)
async def test_an_open_file_in_a_closed_directory_is_not_public(starter: Starter) -> None:
    with attacked_place(starter) as base:
        (base / "other").mkdir(mode=0o755)
        (base / "other" / "stolen").write_bytes(b"x")
        (base / "home" / "open").write_bytes(CONTENT)  # `home` has the mode 0700
        (base / "home" / "open").chmod(0o644)
        first = HostileMaster(base / "project")
        first.owner = b"1" * 32
        async with mirror(first, base / "place", starter):
            assert (await first.run("cksum", str(base / "home" / "open"))).exit.code == 0
        assert is_stored(base / "place" / "cache")
        assert await stolen(starter, base, b"2" * 32) == (False, 1)


@pytest.mark.parametrize("starter", STARTERS)
async def test_public_files_are_sent_once_for_all_masters(starter: Starter) -> None:
    content = Digest(hashlib.sha256(PUBLIC.read_bytes()).digest(), PUBLIC.stat().st_size)
    with attacked_place(starter) as base:
        (base / "other").mkdir(mode=0o755)
        (base / "other" / "stolen").write_bytes(b"x")
        first = HostileMaster(base / "project")
        first.owner = b"1" * 32
        async with mirror(first, base / "place", starter):
            await first.run("cksum", str(PUBLIC))
        assert await stolen(starter, base, b"2" * 32, content) == (True, 0)


@pytest.mark.parametrize("starter", STARTERS)
async def test_a_master_with_too_many_leases_learns_why_it_gets_no_other(starter: Starter) -> None:
    with attacked_place(starter) as base, pytest.raises(UserError, match="at most 8 leases"), first_error():
        async with mirror(HostileMaster(base / "project"), base / "place", starter, slots=0):
            pytest.fail("a lease was granted")
    print("HELD")
