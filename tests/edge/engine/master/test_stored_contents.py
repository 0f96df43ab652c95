"""Contents of stored results are hashed as contents are: long runs of zeros are no damage."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from termite.engine.errors import Retryable
from termite.engine.master.reuse.stored_contents import StoredContents
from termite.engine.model import Digest
from termite.engine.sparse_content import BLOCK_BYTES, digest_of


@pytest.mark.parametrize("content", [b"text", bytes(3 * BLOCK_BYTES) + b"end"])
async def test_a_content_is_read_if_its_digest_is_right_and_removed_if_not(tmp_path: Path, content: bytes) -> None:
    file, removed = tmp_path / "content", list[Digest]()
    store = SimpleNamespace(open_content=lambda _: os.open(file, os.O_RDONLY), remove_content=removed.append)
    file.write_bytes(content)
    digest = digest_of(content)
    async with StoredContents(cast(Any, store), [digest], cast(Any, None)) as contents:
        assert contents == {digest.sha256: content}
    file.write_bytes(content[:-1] + b"!")
    with pytest.raises(Retryable, match="damaged"):
        async with StoredContents(cast(Any, store), [digest], cast(Any, None)):
            pass
    assert removed == [digest]
