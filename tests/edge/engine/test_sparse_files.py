"""Files with holes are read, stored, staged and copied without their zeros."""

import errno
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.engine.sparse_content import BLOCK_BYTES, ContentHash, Piece, copy_pieces, digest_of, pieces
from termite.engine.store.cas import Cas
from termite.engine.tree.hashes import Hashes
from termite.engine.tree.publishing.staging import StagedWriter, Staging, stage_copy
from tests.edge.engine.tree.tree_jobs import tree_path

HUGE_BYTES = 20 * 1024**3
FEW_KIB = 1024


def make(path: Path, size: int, *data: tuple[int, bytes]) -> Path:
    with path.open("wb") as file:
        for offset, content in data:
            file.seek(offset)
            file.write(content)
        file.truncate(size)
    return path


def used_kib(path: Path) -> int:
    return path.stat().st_blocks // 2


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """Return a file of 20 GiB with data at its beginning, in its middle and near its end."""
    path = make(
        tmp_path / "huge", HUGE_BYTES, (0, b"begin"), (HUGE_BYTES // 2 + 5, b"middle"), (HUGE_BYTES - 9, b"end")
    )
    if used_kib(path) > FEW_KIB:
        pytest.skip("this file system has no holes")
    return path


@pytest.fixture
def cas(tmp_path: Path) -> Iterator[Cas]:
    store = Cas(tmp_path / "cas")
    yield store
    store.close()


def hashed(found: Iterator[Piece]) -> ContentHash:
    state = ContentHash()
    for piece in found:
        if isinstance(piece, int):
            state.skip(piece)
        else:
            state.update(piece)
    return state


@pytest.mark.parametrize(
    "data",
    [
        [],
        [(0, b"x")],
        [(3 * BLOCK_BYTES + 7, b"y" * BLOCK_BYTES)],
        [(10 * BLOCK_BYTES - 1, b"z")],
        [(0, b"x" * BLOCK_BYTES), (4 * BLOCK_BYTES, b"y")],
    ],
)
def test_the_pieces_are_the_content(tmp_path: Path, data: list[tuple[int, bytes]]) -> None:
    path = make(tmp_path / "f", 10 * BLOCK_BYTES, *data)
    content = path.read_bytes()
    with path.open("rb") as file:
        file.seek(5)
        found = list(pieces(file.fileno(), len(content) + 1, 1000))
        assert file.tell() == 5
    assert b"".join(bytes(piece) for piece in found) == content
    assert sum(piece for piece in found if isinstance(piece, int)) > 4 * BLOCK_BYTES
    assert hashed(iter(found)).digest() == digest_of(content)


@pytest.mark.parametrize("whence", [os.SEEK_DATA, os.SEEK_HOLE])
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOMEM])
def test_an_error_of_the_disk_is_not_the_end_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whence: int, number: int
) -> None:
    path = tmp_path / "f"
    with path.open("wb") as file:
        file.seek(8 << 20)
        file.write(b"x" * 4096)
        file.seek(16 << 20)
        file.write(b"x" * 4096)
    real = os.lseek

    def lseek(fd: int, offset: int, how: int) -> int:
        if how == whence:
            raise OSError(number, os.strerror(number))
        return real(fd, offset, how)

    fd = os.open(path, os.O_RDONLY)
    try:
        monkeypatch.setattr(os, "lseek", lseek)
        with pytest.raises(OSError, match=re.escape(os.strerror(number))):
            list(pieces(fd, 1 << 40, 1 << 20))
    finally:
        os.close(fd)


def test_holes_and_written_zeros_have_one_digest(tmp_path: Path) -> None:
    holes = make(tmp_path / "holes", 8 * BLOCK_BYTES, (0, b"x"))
    full = tmp_path / "full"
    full.write_bytes(holes.read_bytes())
    assert used_kib(full) > used_kib(holes)
    digests = []
    for path in (holes, full):
        with path.open("rb") as file:
            digests.append(Hashes(None).hash_file(file.fileno()))
    assert digests[0] == digests[1] == digest_of(full.read_bytes())


def test_the_store_keeps_and_verifies_a_huge_file_at_no_cost(huge: Path, cas: Cas) -> None:
    began_s = time.process_time()
    with huge.open("rb") as file:
        digest = cas.copy_in(file.fileno(), HUGE_BYTES)
    fd = cas.open(digest)
    assert fd is not None
    assert os.pread(fd, 6, HUGE_BYTES // 2 + 5) == b"middle" and os.pread(fd, 9, HUGE_BYTES - 9) == b"end" + bytes(6)
    os.close(fd)
    assert cas.disk_bytes(digest) < FEW_KIB * 1024
    assert cas.statistics()["added_bytes"] < FEW_KIB * 1024
    list(cas.scrub(time.time() + 10**8))
    assert cas.statistics()["bad"] == 0
    assert time.process_time() - began_s < 2


@pytest.mark.logs("store-blob-bad")
def test_a_wrong_byte_in_a_hole_is_found(tmp_path: Path, cas: Cas) -> None:
    path = make(tmp_path / "f", 8 * BLOCK_BYTES, (0, b"x"))
    with path.open("rb") as file:
        digest = cas.copy_in(file.fileno(), 8 * BLOCK_BYTES)
    blob = cas.path(digest)
    assert blob is not None
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.seek(5 * BLOCK_BYTES)
        file.write(b"!")
    assert cas.open(digest) is None


def test_staged_and_copied_files_keep_their_holes(tmp_path: Path, huge: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    staging = Staging(tree_path(root))
    began_s = time.process_time()
    with huge.open("rb") as source:
        writer = StagedWriter(staging)
        for piece in pieces(source.fileno(), HUGE_BYTES, BLOCK_BYTES):
            writer.skip(piece) if isinstance(piece, int) else writer.write(piece)
        staged, digest = writer.end()
        stage_copy(staging.fd, b"copy", source.fileno())
        target = os.open(tmp_path / "target", os.O_WRONLY | os.O_CREAT)
        copy_pieces(source.fileno(), target)
        os.close(target)
    for path in (staged, staging.path / "copy", tmp_path / "target"):
        with path.open("rb") as file:
            assert Hashes(None).hash_file(file.fileno()) == digest
        assert path.stat().st_size == HUGE_BYTES and used_kib(path) < FEW_KIB
    assert time.process_time() - began_s < 2
    staging.close()
