"""A master asks a worker for a result of another master, whose digest it knows."""

import hashlib
from pathlib import Path

import pytest

from termite.engine.errors import Reason, Retryable
from termite.engine.model import Digest
from termite.engine.wire.protocol.messages import GetBlob
from tests.e2e.mirrors import Starter, mirror
from tests.hostile.masters import STARTERS, HostileMaster, attacked_place

SIZE = 300_000
RESULT = Digest(hashlib.sha256(bytes(SIZE)).digest(), SIZE)


async def fetched(master: HostileMaster) -> bytes:
    """Return the content of RESULT, as the worker sends it."""
    chunks: list[bytes] = []

    async def take(chunk: bytes) -> None:
        chunks.append(chunk)

    await master.connection.request(GetBlob(RESULT), on_chunk=take)
    return b"".join(chunks)


def is_stored(cache: Path) -> bool:
    return any(RESULT.sha256.hex()[2:] in path.name for path in cache.rglob("*"))


@pytest.mark.parametrize("starter", STARTERS)
async def test_a_result_is_given_to_the_lease_whose_job_made_it_only(starter: Starter) -> None:
    with attacked_place(starter) as base:
        owner = HostileMaster(base / "project")
        async with mirror(owner, base / "place", starter):
            await owner.run("dd", "if=/dev/zero", "of=result", f"bs={SIZE}", "count=1")
            assert await fetched(owner) == bytes(SIZE)
        (base / "other").mkdir(mode=0o755)
        other = HostileMaster(base / "other")
        async with mirror(other, base / "place", starter):
            assert is_stored(base / "place" / "cache")
            with pytest.raises(Retryable) as refused:
                await fetched(other)
            assert refused.value.reason is Reason.RESULT_LOST
    print("HELD")
