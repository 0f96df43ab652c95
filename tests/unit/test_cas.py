"""Test the store of blobs: verified contents, eviction, and what a killed process leaves."""

import hashlib
import mmap
import os
import threading
import time
from pathlib import Path

import pytest

from termite.engine.errors import NotAtRest, RemoteProtocolError, Retryable
from termite.engine.model import Digest
from termite.engine.store import cas as cas_module
from termite.engine.store.cas import Cas, CasWriter


def digest_of(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).digest(), len(content))


def read(cas: Cas, digest: Digest) -> bytes | None:
    fd = cas.open(digest)
    if fd is None:
        return None
    with open(fd, "rb") as file:
        return file.read()


def names_in(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def leave_unused(cas: Cas, digest: Digest, seconds: float) -> None:
    path = cas.path(digest)
    assert path is not None
    os.utime(path, (0, time.time() - seconds))


@pytest.fixture
def cas(tmp_path: Path) -> Cas:
    return Cas(tmp_path / "cas", 1024 * 1024)


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 300_000], ids=["empty", "one byte", "more than a chunk"])
def test_what_was_put_can_be_read_by_its_digest(cas: Cas, content: bytes) -> None:
    digest = cas.put(content)
    assert digest == digest_of(content)
    assert read(cas, digest) == content


def test_a_blob_is_read_only_and_lies_below_the_first_two_digits_of_its_digest(cas: Cas, tmp_path: Path) -> None:
    digest = cas.put(b"content")
    path = cas.path(digest)
    assert path == tmp_path / "cas" / digest.sha256.hex()[:2] / digest.sha256.hex()[2:]
    assert path.stat().st_mode & 0o777 == 0o444


def test_what_is_not_there_is_none_and_counts_as_a_miss(cas: Cas) -> None:
    assert cas.path(digest_of(b"nothing")) is None
    assert cas.open(digest_of(b"nothing")) is None
    assert cas.statistics()["misses"] == 2


def test_a_blob_written_in_pieces_gets_its_name_when_it_is_finished(cas: Cas) -> None:
    writer = cas.writer()
    writer.write(b"one ")
    writer.write(memoryview(b"two"))
    assert cas.path(digest_of(b"one two")) is None
    assert writer.finish(digest_of(b"one two")) == digest_of(b"one two")
    assert read(cas, digest_of(b"one two")) == b"one two"


def test_a_blob_that_is_not_what_was_expected_is_an_error_of_the_sender_and_leaves_nothing(
    cas: Cas, tmp_path: Path
) -> None:
    writer = cas.writer()
    writer.write(b"forged")
    with pytest.raises(RemoteProtocolError):
        writer.finish(digest_of(b"honest"))
    assert names_in(tmp_path) == []


def test_the_right_bytes_with_a_wrong_size_are_an_error_too(cas: Cas) -> None:
    writer = cas.writer()
    writer.write(b"content")
    with pytest.raises(RemoteProtocolError):
        writer.finish(Digest(digest_of(b"content").sha256, 8))


def test_a_discarded_blob_leaves_nothing_and_discarding_twice_or_after_the_end_is_nothing(
    cas: Cas, tmp_path: Path
) -> None:
    writer = cas.writer()
    writer.write(b"half")
    writer.discard()
    writer.discard()
    assert names_in(tmp_path) == []
    finished = cas.writer()
    digest = finished.finish()
    finished.discard()
    assert cas.path(digest) is not None


def copy_in(cas: Cas, source: Path, size_bytes: int | None = None) -> Digest:
    with open(source, "rb") as file:
        return cas.copy_in(file.fileno(), os.fstat(file.fileno()).st_size if size_bytes is None else size_bytes)


def test_a_file_is_copied_in_and_whoever_has_it_open_cannot_write_to_the_blob(cas: Cas, tmp_path: Path) -> None:
    source = tmp_path / "out.o"
    source.write_bytes(b"object" * 100_000)
    source.chmod(0o4755)
    os.utime(source, (0, 0))
    os.link(source, tmp_path / "another name")
    with open(source, "r+b") as writer, open(source, "rb") as reader:
        mapping = mmap.mmap(writer.fileno(), 0)
        path = cas.path(copy_in(cas, source))
        assert path is not None
        mapping[:4] = b"EVIL"
        writer.write(b"EVIL")
        writer.flush()
        with open(f"/proc/self/fd/{reader.fileno()}", "r+b") as again:
            again.write(b"EVIL")
    assert path.read_bytes() == b"object" * 100_000
    status = path.stat()
    assert (status.st_mode & 0o7777, status.st_nlink) == (0o444, 1)
    assert time.time() - status.st_mtime < 60, "its age in the store begins now"
    assert source.stat().st_nlink == 2, "what was copied stays as it is"
    assert len(names_in(tmp_path / "cas")) == 1


def test_copying_in_what_is_there_changes_nothing(cas: Cas, tmp_path: Path) -> None:
    first = cas.path(cas.put(b"same"))
    assert first is not None
    inode = first.stat().st_ino
    (tmp_path / "again").write_bytes(b"same")
    copy_in(cas, tmp_path / "again")
    assert first.stat().st_ino == inode


@pytest.mark.parametrize("size_bytes", [5, 7], ids=["grown", "shrunk"])
def test_a_file_that_has_another_size_is_not_at_rest(cas: Cas, tmp_path: Path, size_bytes: int) -> None:
    (tmp_path / "f").write_bytes(b"object")
    with pytest.raises(NotAtRest):
        copy_in(cas, tmp_path / "f", size_bytes)
    assert names_in(tmp_path / "cas") == []


def test_a_file_that_changes_between_the_two_readings_is_not_at_rest(cas: Cas, tmp_path: Path) -> None:
    source = tmp_path / "f"
    source.write_bytes(b"object")

    class Changing(Cas):
        def writer(self) -> CasWriter:
            source.write_bytes(b"forged")
            return super().writer()

    changing = Changing(tmp_path / "cas")
    with pytest.raises(NotAtRest):
        copy_in(changing, source)
    assert cas.path(digest_of(b"object")) is None


def test_the_digest_of_a_file_without_end_is_not_waited_for(cas: Cas) -> None:
    with open("/dev/zero", "rb") as endless, pytest.raises(NotAtRest):
        cas.copy_in(endless.fileno(), 1000)


def test_two_threads_may_put_the_same_content_at_once(tmp_path: Path) -> None:
    cas = Cas(tmp_path / "cas", 1024 * 1024)
    contents = [b"%d" % number * 1000 for number in range(50)]
    both = threading.Barrier(2)
    digests: list[list[Digest]] = [[], []]

    def put_all(mine: list[Digest]) -> None:
        for content in contents:
            both.wait(timeout=10)
            mine.append(cas.put(content))

    threads = [threading.Thread(target=put_all, args=(mine,)) for mine in digests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert digests[0] == digests[1] == [digest_of(content) for content in contents]
    assert [read(cas, digest) for digest in digests[0]] == contents
    assert len(names_in(tmp_path)) == 50, "no temporary file is left"


def test_two_processes_share_a_store(tmp_path: Path) -> None:
    mine, theirs = Cas(tmp_path / "cas", 1024 * 1024), Cas(tmp_path / "cas", 1024 * 1024)
    assert read(theirs, mine.put(b"shared")) == b"shared"


def test_what_was_not_used_for_longest_is_evicted_until_the_rest_fits(tmp_path: Path) -> None:
    cas = Cas(tmp_path / "cas", 100 * 1024)
    digests = [cas.put(bytes([number]) * 20 * 1024) for number in range(10)]
    for number, digest in enumerate(digests):
        leave_unused(cas, digest, 10_000 - number)
    fd = cas.open(digests[0])  # used just now, so it is the youngest
    assert fd is not None
    os.close(fd)
    assert cas.evict() == cas.statistics()["evicted"] == 6
    assert [cas.path(digest) is not None for digest in digests] == [True] + [False] * 6 + [True] * 3


def test_an_open_blob_outlives_its_eviction(tmp_path: Path) -> None:
    cas = Cas(tmp_path / "cas", 0)
    digest = cas.put(b"still readable")
    fd = cas.open(digest)
    assert fd is not None
    cas.evict()
    assert cas.path(digest) is None
    with open(fd, "rb") as file:
        assert file.read() == b"still readable"


def test_nothing_is_evicted_from_a_store_that_fits(cas: Cas) -> None:
    digest = cas.put(b"small")
    assert cas.evict() == 0
    assert cas.path(digest) is not None


def test_the_half_written_file_of_a_killed_process_is_removed_when_it_is_old(cas: Cas, tmp_path: Path) -> None:
    old, young = tmp_path / "cas" / "tmp" / "1-1-0", tmp_path / "cas" / "tmp" / "1-1-1"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (0, time.time() - cas_module.ABANDONED_S - 1))
    cas.evict()
    assert not old.exists()
    assert young.exists(), "somebody may be writing it"


@pytest.mark.parametrize("look", ["path", "open"])
def test_a_blob_cut_off_by_a_power_failure_is_gone_instead_of_wrong(cas: Cas, look: str) -> None:
    digest = cas.put(b"whole")
    path = cas.path(digest)
    assert path is not None
    path.chmod(0o644)
    path.write_bytes(b"wh")
    assert getattr(cas, look)(digest) is None
    assert read(cas, cas.put(b"whole")) == b"whole"


def test_a_full_disk_is_a_reason_to_try_elsewhere(cas: Cas, tmp_path: Path) -> None:
    writer = cas.writer()
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer._fd)
    os.close(full)
    with pytest.raises(Retryable, match="worker's disk is full"):
        writer.write(b"x")
    writer.discard()
    assert names_in(tmp_path) == []
