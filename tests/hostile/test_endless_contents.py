"""A hostile master sends a file that never ends, and the worker's disk does not fill."""

from pathlib import Path

import msgspec
import pytest

from termite.engine.errors import Reason, Retryable
from termite.engine.wire.protocol.frames import DATA_BYTES, pack_piece
from termite.engine.wire.protocol.messages import Directory, File, GetFile
from termite.engine.wire.transport import SendChunk
from tests.e2e.mirrors import Starter, mirror
from tests.hostile.masters import STARTERS, HostileMaster, attacked_place

SIZE = 100_000  # as the file is listed
CHUNK = bytes(DATA_BYTES)
ENOUGH = 64 * 1024 * 1024


class EndlessMaster(HostileMaster):
    def __init__(self, project: Path) -> None:
        super().__init__(project)
        self.sent_bytes = 0

    async def _file(self, request: GetFile, send_chunk: SendChunk) -> File:
        while request.path.endswith(b"/endless") and self.sent_bytes < ENOUGH:
            await send_chunk(pack_piece(CHUNK))
            self.sent_bytes += len(CHUNK)
        return await super()._file(request, send_chunk)


@pytest.mark.parametrize("starter", STARTERS)
async def test_a_file_ends_where_it_was_listed_to_end(starter: Starter) -> None:
    with attacked_place(starter) as base:
        (base / "project" / "endless").write_bytes(bytes(SIZE))
        master = EndlessMaster(base / "project")
        async with mirror(master, base / "place", starter):
            with pytest.raises(Retryable) as refused:
                await master.run("cat", "endless")
            assert refused.value.reason is Reason.FILE_CHANGED
            assert 0 < master.sent_bytes < ENOUGH, "no more than the window of the connection"
            assert await master.said("echo", "alive") == b"alive\n"
    print("HELD")


class Boaster(HostileMaster):
    """A master that lists the file `huge` with more than a worker's store may have."""

    def _directory(self, path: bytes) -> Directory:
        listing = super()._directory(path)
        boasted = {
            name: msgspec.structs.replace(attr, size=64 << 40)
            for name, attr in listing.children.items()
            if name == b"huge"
        }
        return msgspec.structs.replace(listing, children={**listing.children, **boasted})

    async def _file(self, request: GetFile, send_chunk: SendChunk) -> File:
        assert not request.path.endswith(b"/huge"), "it may not even be asked for"
        return await super()._file(request, send_chunk)


@pytest.mark.parametrize("starter", STARTERS)
async def test_a_file_larger_than_the_store_is_not_fetched(starter: Starter) -> None:
    with attacked_place(starter) as base:
        (base / "project" / "huge").write_bytes(b"x")
        master = Boaster(base / "project")
        async with mirror(master, base / "place", starter):
            with pytest.raises(Retryable) as refused:
                await master.run("head", "-c", "1", "huge")
            assert refused.value.reason is Reason.DISK_FULL
            assert (await master.run("true")).exit.code == 0
    print("HELD")
