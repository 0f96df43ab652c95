"""Test the store of blobs: verified contents, eviction, and what a killed process leaves."""

import contextlib
import errno
import fcntl
import mmap
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from termite.engine.errors import NotAtRest, RemoteProtocolError, Retryable
from termite.engine.model import Digest
from termite.engine.sparse_content import digest_of
from termite.engine.store import cas as cas_module
from termite.engine.store import eviction, scrub, store_calls, verified_mark
from termite.engine.store.cas import Cas
from termite.engine.store.cas_writer import CasWriter


def read(cas: Cas, digest: Digest) -> bytes | None:
    fd = cas.open(digest)
    if fd is None:
        return None
    with open(fd, "rb") as file:
        return file.read()


def names_in(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def path_of(cas: Cas, digest: Digest) -> bytes:
    """Return where a blob is or would be; this is no use of it."""
    return cas._name(digest)


def leave_unused(cas: Cas, digest: Digest, seconds: float) -> None:
    path = cas.path(digest)
    assert path is not None
    os.utime(path, (0, time.time() - seconds))


def flip(cas: Cas, digest: Digest) -> Path:
    """Change one bit of a blob, and keep its size."""
    path = cas.path(digest)
    assert path is not None
    path.chmod(0o644)
    with path.open("r+b") as file:
        first = file.read(1)[0]
        file.seek(0)
        file.write(bytes([first ^ 1]))
    return path


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


@pytest.mark.attack
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


@pytest.mark.attack
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


def test_half_written_files_of_a_killed_process_are_removed_at_once_and_those_of_others_stay(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        killed = Cas(tmp_path)
        killed.writer().write(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    (tmp_path / "tmp" / "1-1-0").write_bytes(b"half")  # as an earlier version has left it
    assert len(names_in(tmp_path / "tmp")) == 2
    living = Cas(tmp_path)
    writer = living.writer()
    writer.write(b"whole")
    other = Cas(tmp_path)
    other.evict()
    assert len(names_in(tmp_path / "tmp")) == 1
    assert read(living, writer.finish()) == b"whole"
    living.close()
    other.close()
    assert os.listdir(tmp_path / "tmp") == []


@pytest.mark.logs("store-blob-bad")
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


# -- verified blobs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("look", ["open", "verify"])
def test_a_flipped_bit_is_found_before_the_blob_is_read(cas: Cas, look: str, caplog: pytest.LogCaptureFixture) -> None:
    digest = cas.put(b"content")
    path = flip(cas, digest)
    assert not cas.is_verified(digest)
    assert not getattr(cas, look)(digest)
    assert not path.exists(), "so that it is fetched again"
    assert cas.open(digest) is None
    assert cas.statistics()["bad"] == 1
    (line,) = caplog.messages
    assert line == f"store-blob-bad digest={digest.sha256.hex()} size=7 reason=content"
    assert read(cas, cas.put(b"content")) == b"content"


@pytest.mark.logs("store-blob-bad")
def test_a_flipped_bit_is_found_although_the_time_of_the_change_was_set_back(cas: Cas) -> None:
    digest = cas.put(b"content")
    path = cas.path(digest)
    assert path is not None
    before = path.stat()
    time.sleep(0.05)  # ctime cannot be set, so it has to differ
    flip(cas, digest)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cas.open(digest) is None


@pytest.mark.logs("store-blob-bad")
def test_the_same_content_stored_again_takes_the_place_of_a_bad_blob(cas: Cas) -> None:
    digest = cas.put(b"content")
    flip(cas, digest)
    with contextlib.closing(cas.writer()) as writer:  # as from the network
        writer.write(b"content")
        writer.finish(digest)
    assert cas.is_verified(digest)
    assert read(cas, digest) == b"content"
    flip(cas, digest)
    assert cas.put(b"content") == digest
    assert read(cas, digest) == b"content"


def test_what_was_verified_is_known_to_the_next_process(tmp_path: Path) -> None:
    mine = Cas(tmp_path / "cas")
    digest = mine.put(b"content")
    os.utime(mine.path(digest) or "")  # as if it came from an earlier boot
    assert not mine.is_verified(digest)
    assert mine.verify(digest)
    theirs = Cas(tmp_path / "cas")
    assert theirs.is_verified(digest)
    assert read(theirs, digest) == b"content"
    assert mine.statistics()["verified"] == 1
    assert theirs.statistics()["verified"] == 0


def test_what_was_stored_just_now_is_not_hashed_again(cas: Cas, tmp_path: Path) -> None:
    digest = cas.put(b"content")
    assert cas.is_verified(digest)
    assert read(cas, digest) == b"content"
    assert cas.statistics()["verified"] == 0


def test_a_blob_of_an_earlier_boot_is_hashed_again(cas: Cas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = cas.put(b"content")
    boot = tmp_path / "boot_id"
    boot.write_text("another")
    monkeypatch.setattr(verified_mark, "BOOT_ID", boot)
    assert not Cas(tmp_path / "cas").is_verified(digest)


def test_a_use_after_a_while_is_noted_and_the_blob_stays_verified(cas: Cas, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = cas.put(b"content")
    path = cas.path(digest)
    assert path is not None
    monkeypatch.setattr(cas_module, "USED_AGAIN_S", 0.0)
    before = path.stat().st_mtime_ns
    for look in (cas.is_verified, cas.verify, cas.path, lambda digest: read(cas, digest)):
        time.sleep(0.05)  # times of files are those of the kernel's ticks
        assert look(digest)
        assert path.stat().st_mtime_ns > before
        before = path.stat().st_mtime_ns
        assert cas.is_verified(digest)
    assert cas.statistics()["verified"] == 0


def test_a_use_of_a_blob_that_is_not_verified_does_not_verify_it(cas: Cas) -> None:
    digest = cas.put(b"content")
    leave_unused(cas, digest, 10_000)
    path = cas.path(digest)
    assert path is not None
    assert path.stat().st_mtime > time.time() - 100
    assert not cas.is_verified(digest)


def test_a_blob_that_changes_while_it_is_verified_is_hashed_again(cas: Cas, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = cas.put(b"content")
    path = cas.path(digest)
    assert path is not None
    os.utime(path)

    def and_change(fd: int, digest: Digest) -> bool:
        time.sleep(0.05)  # times of files are those of the kernel's ticks
        flip(cas, digest)
        return True

    monkeypatch.setattr(cas_module, "has_content", and_change)
    assert cas.verify(digest)
    assert not cas.is_verified(digest)


@pytest.mark.logs("store-blob-bad")
def test_a_blob_that_the_disk_cannot_read_is_bad(cas: Cas, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = cas.put(b"content")
    os.utime(cas.path(digest) or "")

    def refuse(fd: int, size: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(store_calls, "pread", refuse)
    assert cas.open(digest) is None
    assert cas.path(digest) is None


# -- scrub --------------------------------------------------------------------------------------------------------


def scrub_all(cas: Cas, now: float) -> int:
    """Scrub what is due, and return the number of bytes."""
    return sum(cas.scrub(now))


def test_a_scrub_reads_everything_once_a_week(cas: Cas) -> None:
    contents = [b"x" * 3_000_000, b"one", b"two"]
    for content in contents:
        cas.put(content)
    now = time.time()
    assert scrub_all(cas, now) == sum(map(len, contents)) == cas.statistics()["scrubbed_bytes"]
    assert scrub_all(cas, now + 1000) == 0
    assert scrub_all(cas, now + scrub.SCRUB_S + 1) == sum(map(len, contents))
    steps = list(cas.scrub(now + 2 * scrub.SCRUB_S + 10))
    assert max(steps) <= 1024 * 1024 + 256 * 1024
    assert len(steps) >= 5, "several for the large one, one for each other"


def test_a_scrub_that_ended_early_goes_on_where_another_process_begins(tmp_path: Path) -> None:
    mine, theirs = Cas(tmp_path / "cas"), Cas(tmp_path / "cas")
    for number in range(100):
        mine.put(b"%03d" % number)
    now = time.time()
    steps = mine.scrub(now)
    read_before = sum(next(steps) for _ in range(50))
    del steps
    read_after = sum(theirs.scrub(now + 5))
    assert read_after > 0
    assert 100 * 3 - 3 * 5 <= read_before + read_after <= 100 * 3, "only the rest of one shard is left out"


@pytest.mark.logs("store-blob-bad")
def test_a_scrub_finds_a_change_that_the_times_of_the_blob_hide(cas: Cas, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = cas.put(b"good"), cas.put(b"bad")
    flip(cas, bad)
    monkeypatch.setattr(cas_module, "is_marked", lambda *_: True)  # as if neither mtime nor ctime had changed
    assert read(cas, bad) not in (b"bad", None)
    scrub_all(cas, time.time())
    assert cas.open(bad) is None
    assert read(cas, good) == b"good"


def test_a_scrub_is_no_use_of_a_blob_and_leaves_it_verified(cas: Cas) -> None:
    digest = cas.put(b"content")
    path = cas.path(digest)
    assert path is not None
    before = path.stat()
    scrub_all(cas, time.time())
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert cas.is_verified(digest)


@pytest.mark.parametrize("rubbish", [b"", b"x", b"\xff" * 4096, b"\0" * 2047], ids=["none", "short", "future", "cut"])
def test_rubbish_in_the_times_of_the_scrub_means_that_all_is_due(cas: Cas, tmp_path: Path, rubbish: bytes) -> None:
    cas.put(b"content")
    (tmp_path / "cas" / "scrubbed").write_bytes(rubbish)
    assert scrub_all(cas, time.time()) == len(b"content")


def test_a_foreign_file_in_the_store_does_not_disturb_the_scrub(cas: Cas, tmp_path: Path) -> None:
    digest = cas.put(b"content")
    (tmp_path / "cas" / digest.sha256.hex()[:2] / "lost+found").write_bytes(b"foreign")
    assert scrub_all(cas, time.time()) == len(b"content")


# -- limits -------------------------------------------------------------------------------------------------------


def test_the_number_of_files_is_limited_too(tmp_path: Path) -> None:
    cas = Cas(tmp_path / "cas", max_files=100)
    digests = [cas.put(b"%d" % number) for number in range(101)]
    for number, digest in enumerate(digests):
        leave_unused(cas, digest, 10_000 - number)
    assert cas.evict() == 11, "down to nine tenths"
    assert [os.path.exists(path_of(cas, digest)) for digest in digests] == [False] * 11 + [True] * 90


def test_an_eviction_of_many_blobs_has_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction, "STEP_BLOBS", 10)
    cas = Cas(tmp_path / "cas", max_files=50)
    for number in range(100):
        cas.put(b"%d" % number)
    steps = list(cas.eviction())
    assert len(steps) >= 20, "ten to look at each blob, ten to evict"
    assert max(steps) <= 10
    assert sum(steps) == cas.statistics()["evicted"] == 55


def test_two_mirrors_do_not_evict_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction, "STEP_BLOBS", 1)
    mine, theirs = Cas(tmp_path / "cas", 0), Cas(tmp_path / "cas", 0)
    mine.put(b"content")
    steps = mine.eviction()
    next(steps)
    assert theirs.evict() == 0
    assert sum(steps) == 1


def test_an_eviction_is_due_when_there_was_none_or_much_was_added(tmp_path: Path) -> None:
    cas = Cas(tmp_path / "cas", max_bytes=100_000, max_files=100)
    now = time.time()
    assert cas.is_eviction_due(now), "there never was one"
    cas.evict()
    cas.put(b"x" * 5000)
    assert not cas.is_eviction_due(now)
    cas.put(b"y")
    assert cas.is_eviction_due(now)
    cas.evict()
    assert not cas.is_eviction_due(now)
    for number in range(6):
        cas.put(b"%d" % number)
    assert cas.is_eviction_due(now)


def test_an_eviction_is_due_after_a_while_whichever_process_made_the_last_one(tmp_path: Path) -> None:
    mine, theirs = Cas(tmp_path / "cas"), Cas(tmp_path / "cas")
    mine.evict()
    now = (tmp_path / "cas" / "evicted").stat().st_mtime
    assert not theirs.is_eviction_due(now + 10)
    assert theirs.is_eviction_due(now + cas_module.EVICT_S + 1)
    assert theirs.is_eviction_due(now - 10_000), "the clock was set back"


def test_a_file_system_without_locks_is_evicted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    cas = Cas(tmp_path / "cas", 0)
    cas.put(b"content")
    assert cas.evict() == 1


def test_a_blob_that_is_used_between_the_two_walks_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction, "STEP_BLOBS", 1)
    cas = Cas(tmp_path / "cas", max_files=1)
    used, unused = cas.put(b"used"), cas.put(b"unused")
    leave_unused(cas, used, 20_000)
    leave_unused(cas, unused, 10_000)
    steps = cas.eviction()
    next(steps)
    next(steps)
    assert read(cas, used) == b"used"
    for _ in steps:
        pass
    assert os.path.exists(path_of(cas, used))
