"""A worker that sends more for a content of a result than it has promised."""

import errno
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from termite.engine.errors import FsError, Reason, Retryable
from termite.engine.fleet.lease import Lease
from termite.engine.master.results import FetchedContents
from termite.engine.model import Attr, Change, Digest, Exit, Usage
from termite.engine.paths import tree_path
from termite.engine.tree.logic.visibility import STAGING
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from termite.engine.wire.protocol.frames import pack_piece
from termite.engine.wire.protocol.messages import Ran

PROMISED = Digest(hashlib.sha256(bytes(100_000)).digest(), 100_000)
RAN = Ran(Exit(0), Usage(), (Change(b"p/x.o", Attr(0o100644, PROMISED.size, 1, PROMISED)),), {}, 1, 2)
ENOUGH = 64 * 1024 * 1024


class EndlessLease:
    """A lease on a worker that never stops sending a content."""

    worker = "w"

    def __init__(self) -> None:
        self.sent_bytes = 0

    async def fetch(self, digest: Digest, on_chunk: Callable[[bytes], Awaitable[None]]) -> None:
        while self.sent_bytes < ENOUGH:
            await on_chunk(pack_piece(bytes(65536)))
            self.sent_bytes += 65536


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[MasterTree]:
    made = MasterTree(TreeConfig(tree_path(tmp_path)))
    yield made
    made.close()


@pytest.mark.attack
async def test_a_content_that_does_not_end_is_refused_at_its_first_surplus_byte(
    tree: MasterTree, tmp_path: Path
) -> None:
    lease = EndlessLease()
    with pytest.raises(Retryable, match="more than the 100000 bytes it promised") as refused:
        async with FetchedContents(cast(Lease, lease), RAN, tree):
            pass
    assert refused.value.reason is Reason.BAD_ANSWER
    assert lease.sent_bytes < 2 * PROMISED.size
    assert sum(path.stat().st_size for path in (tmp_path / os.fsdecode(STAGING)).iterdir() if path.is_file()) < 100


@pytest.mark.attack
async def test_more_data_than_the_disk_has_are_not_written(tree: MasterTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "free_bytes", lambda: 1_000_000)
    huge = Digest(bytes(32), ENOUGH)
    ran = Ran(Exit(0), Usage(), (Change(b"p/huge", Attr(0o100644, huge.size, 1, huge)),), {}, 1, 2)
    lease = EndlessLease()
    with pytest.raises(FsError) as refused:
        async with FetchedContents(cast(Lease, lease), ran, tree):
            pass
    assert refused.value.errno == errno.ENOSPC
    assert lease.sent_bytes < 1_000_000
