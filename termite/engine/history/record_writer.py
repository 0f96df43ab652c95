"""Append the records of a tree to its files, and remove the oldest ones.

Only the tree's master does that. A record is written by one call, without fsync: if the machine
loses its power, the last records may be lost, and readers skip a torn one.
"""

import contextlib
import logging
import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from termite.engine.history.logic.build_tally import cut_off
from termite.engine.history.logic.job_record import BuildRecord, JobRecord
from termite.engine.history.logic.kept_parts import PART_BYTES, BuildPart, choose_evicted
from termite.engine.history.logic.record_file import (
    INDEX_HEAD,
    RECORDS_HEAD,
    index_name,
    pack_build,
    pack_entries,
    pack_job,
    part_name,
    part_numbers,
)
from termite.engine.history.master_mark import has_ended
from termite.engine.history.past_builds import PastBuilds, parts_in, size_of_file
from termite.engine.history.writing_lock import lock_records

DAMAGED = ".damaged"  # the end of the name of a file that was set aside
DAMAGED_KEPT = 4
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

log = logging.getLogger(__name__)


@dataclass(slots=True)
class PackedRecords:
    """Records of one build that are packed but not written: frames, and the keys of each."""

    build: int
    frames: list[bytes] = field(default_factory=list)
    keys: list[list[int]] = field(default_factory=list)
    size_bytes: int = 0

    def add(self, record: JobRecord | BuildRecord) -> None:
        """Pack one more record."""
        frame, keys = pack_job(record) if isinstance(record, JobRecord) else pack_build(record)
        self.frames.append(frame)
        self.keys.append(keys)
        self.size_bytes += len(frame)

    def pack_index(self, start: int) -> bytes:
        """Return the entries, if the first frame is written at the offset `start`."""
        entries = []
        for frame, keys in zip(self.frames, self.keys, strict=True):
            entries.append(pack_entries(keys, start, len(frame)))
            start += len(frame)
        return b"".join(entries)


@dataclass(slots=True)
class _OpenPart:
    """The part of a build that grows: its number, its descriptors, and the bytes in both files."""

    number: int
    records_fd: int
    index_fd: int
    records_bytes: int
    index_bytes: int

    def close(self) -> None:
        os.close(self.records_fd)
        os.close(self.index_fd)


class RecordWriter:
    """The writer of a tree's records, which are in `directory`.

    `last_build` and `last_job` are the highest ids that were given so far, and `past` has the
    builds of earlier masters, the newest first. All calls block for as long as the disk does. They
    raise OSError if it is full or broken, and then later calls may work again; what was written
    before stays whole.
    """

    def __init__(self, directory: Path) -> None:
        """Make the directory if needed, and set aside what is no file of ours.

        Raise BlockingIOError if another master writes there.
        """
        self.directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(directory, 0o700)
        self._open: dict[int, _OpenPart] = {}
        self._lock_fd = lock_records(directory)
        try:
            self._set_aside()
            self.past = PastBuilds(directory).written_builds()
            self.last_build, self.last_job = _last_ids(directory, self.past)
            self._end_cut_off()
        except BaseException:
            self.close()
            raise

    def start(self, build: int) -> bool:
        """Make the first part of a build. Return False if another master has taken this number."""
        try:
            self._open[build] = self._new_part(build, 0)
        except FileExistsError:
            return False
        finally:
            self.last_build = max(self.last_build, build)
        self.evict()
        return True

    def write(self, packed: PackedRecords) -> None:
        """Append records to a build that was started."""
        part = self._open[packed.build]
        if part.records_bytes + packed.size_bytes > PART_BYTES and part.records_bytes > len(RECORDS_HEAD):
            self._open[packed.build] = self._new_part(packed.build, part.number + 1)
            part.close()
            part = self._open[packed.build]
            self.evict()
        index = packed.pack_index(part.records_bytes)
        records_bytes = _append(part.records_fd, b"".join(packed.frames), part.records_bytes)
        try:
            part.index_bytes = _append(part.index_fd, index, part.index_bytes)
        except BaseException:  # a frame without an entry must not stand before one that has an entry
            os.ftruncate(part.records_fd, part.records_bytes)
            raise
        part.records_bytes = records_bytes

    def end(self, build: int) -> None:
        """Close the files of a build."""
        if part := self._open.pop(build, None):
            part.close()

    def close(self) -> None:
        """Close all files. Another master may write then."""
        for build in tuple(self._open):
            self.end(build)
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def evict(self) -> None:
        """Remove the oldest parts, so that the bounds of `kept_parts` hold."""
        growing = {(build, part.number) for build, part in self._open.items()}
        for part in choose_evicted(_parts_in(self.directory), growing):
            name = part_name(part.build, part.part)
            for path in (self.directory / name, self.directory / index_name(name)):
                _remove(path)  # if this fails, the next eviction tries again

    def _new_part(self, build: int, number: int) -> _OpenPart:
        """Make both files of a part. On failure none of them stays, so that a retry may work."""
        records = self.directory / part_name(build, number)
        index = records.with_name(index_name(records.name))
        with ExitStack() as undo:
            records_fd = os.open(records, FLAGS, 0o600)
            undo.callback(_remove, records)
            undo.callback(os.close, records_fd)
            _remove(index)  # without records beside it, an index is left of a part that was removed
            index_fd = os.open(index, FLAGS, 0o600)
            undo.callback(_remove, index)
            undo.callback(os.close, index_fd)
            records_bytes = _append(records_fd, RECORDS_HEAD, 0)
            part = _OpenPart(number, records_fd, index_fd, records_bytes, _append(index_fd, INDEX_HEAD, 0))
            undo.pop_all()
        return part

    def _end_cut_off(self) -> None:
        """Write the ends of builds whose masters were killed.

        While this process has the lock, no other master writes. Without locks, another one may.
        """
        for at, build in enumerate(self.past):
            if build.ended_s or (self._lock_fd is None and not has_ended(build.master)):
                continue
            self.past[at] = cut_off(build, PastBuilds(self.directory).jobs(build.id))
            packed = PackedRecords(build.id)
            packed.add(self.past[at])
            number = max(part.part for part in _parts_in(self.directory) if part.build == build.id)
            try:  # the last part may end with a torn frame, behind which no reader looks
                self._open[build.id] = self._new_part(build.id, number + 1)
                self.write(packed)
            except OSError as error:  # the next master tries again
                log.warning("records-not-written path=%s reason=%s", self.directory, error.strerror)
            self.end(build.id)

    def _set_aside(self) -> None:
        """Rename files that begin wrongly, so that they are read no more. Keep a few of them."""
        for path in parts_in(self.directory):
            if not _begins_well(path):
                log.warning("records-damaged path=%s", path)
                for damaged in (path, path.with_name(index_name(path.name))):
                    with contextlib.suppress(OSError):  # it stays, and readers pass over it
                        damaged.replace(damaged.with_name(damaged.name + DAMAGED))
        with contextlib.suppress(OSError):  # the next master removes them
            for path in sorted(self.directory.glob("*" + DAMAGED))[: -2 * DAMAGED_KEPT]:
                path.unlink()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # the next master removes it
        path.unlink()


def _append(fd: int, content: bytes, size: int) -> int:
    """Append to a file of `size` bytes, and return its new size. On failure, leave it as it was."""
    try:
        written = os.write(fd, content)
        while written < len(content):
            written += os.write(fd, content[written:])
    except BaseException:
        with contextlib.suppress(OSError):  # readers end at a damaged record
            os.ftruncate(fd, size)
        raise
    return size + len(content)


def _last_ids(directory: Path, builds: list[BuildRecord]) -> tuple[int, int]:
    """Return the highest ids of builds and jobs in the files."""
    last_job = 0
    for build in builds:
        jobs = () if build.ended_s else PastBuilds(directory).jobs(build.id)
        last_job = max(last_job, build.last_job, *(job.id for job in jobs))
    return max((part.build for part in _parts_in(directory)), default=0), last_job


def _parts_in(directory: Path) -> Iterable[BuildPart]:
    for path in parts_in(directory):
        if found := part_numbers(path.name):
            size, index_size = size_of_file(path), size_of_file(path.with_name(index_name(path.name)))
            yield BuildPart(*found, size + index_size, size <= len(RECORDS_HEAD))


def _begins_well(path: Path) -> bool:
    """Return whether a file has the right beginning, or a part of it as after a crash."""
    try:
        with path.open("rb") as file:
            head = file.read(len(RECORDS_HEAD))
    except OSError:
        return True  # perhaps it can be read later
    return RECORDS_HEAD.startswith(head)
