"""Read the records of a tree's last builds, while its master may write more of them.

Nothing here changes a file. Damaged places are skipped and listed in `damages`.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from termite.engine.history.logic.build_tally import cut_off
from termite.engine.history.logic.job_record import BuildRecord, JobRecord, Where
from termite.engine.history.logic.record_file import (
    BUILD,
    BUILD_KEY,
    JOB,
    Damage,
    IndexEntry,
    RecordFrame,
    Wound,
    file_key,
    id_key,
    index_name,
    name_key,
    names_in_command,
    parse_frames,
    parse_record,
    part_numbers,
    read_index,
    text_key,
)
from termite.engine.history.master_mark import has_ended
from termite.engine.history.writing_lock import is_written


@dataclass(frozen=True, slots=True)
class DamagedPart:
    """A file of records that is damaged. Its sound records were read."""

    path: Path
    damage: Damage


class PastBuilds:
    """The last builds of a tree, whose records are in `directory`. All calls block.

    Each call reads the files anew, so that one object may serve for long. `damages` has what the
    last call has skipped. A directory that does not exist has no builds.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.damages: list[DamagedPart] = []

    def builds(self) -> list[BuildRecord]:
        """Return the builds, the newest first. One that runs now has `ended_s` 0.0.

        A build that no master has ended, though none writes now, is returned as cut off. Without
        locks, its own master must be known to have ended.
        """
        was_written = is_written(self.directory)
        builds, damages = self.written_builds(), self.damages
        # A master that has begun meanwhile has a build that runs.
        if was_written or all(build.ended_s for build in builds) or (is_now := is_written(self.directory)):
            return builds
        has_locks = was_written is False and is_now is False
        for at, build in enumerate(builds):
            if not build.ended_s and (has_locks or has_ended(build.master)):
                builds[at] = cut_off(build, self.jobs(build.id))
        self.damages = damages
        return builds

    def written_builds(self) -> list[BuildRecord]:
        """Return the builds as they are on the disk, the newest first."""
        self.damages = []
        found: dict[int, BuildRecord] = {}
        for path in self._parts():
            for record in self._with_key(path, BUILD, BUILD_KEY):
                if isinstance(record, BuildRecord):
                    found.setdefault(record.id, record)
        return [found[number] for number in sorted(found, reverse=True)]

    def jobs(self, build: int) -> list[JobRecord]:
        """Return the finished jobs of a build, in the order in which they came home.

        Return [] if the build is not known.
        """
        self.damages = []
        prefix = f"{build:08d}-"
        return [
            record for path in reversed(self._parts()) if path.name.startswith(prefix) for record in self._all(path)
        ]

    def job(self, number: int) -> JobRecord | None:
        """Return the finished job with this id, or None if no kept build has it."""
        return next(self._find(id_key(number), lambda record: record.id == number), None)

    def made(self, path: bytes) -> list[JobRecord]:
        """Return the jobs that wrote a file, the newest first. `path` is below the tree."""
        return list(self._find(file_key(path), lambda record: path in record.files))

    def files_of_name(self, name: bytes) -> list[bytes]:
        """Return the files with this last part that jobs wrote, those of the newest jobs first.

        The files are below the tree.
        """

        def named(record: JobRecord) -> list[bytes]:
            return [file for file in record.files if file.rpartition(b"/")[2] == name]

        jobs = self._find(file_key(name), lambda record: bool(named(record)))
        return list(dict.fromkeys(file for job in jobs for file in named(job)))

    def naming(self, name: str) -> Iterator[JobRecord]:
        """Yield the jobs that ran here and whose command names a file with this last part.

        The newest ones come first.
        """
        return self._find(name_key(name), lambda job: job.where is Where.HERE and name in names_in_command(job.text))

    def ran(self, text: str) -> list[JobRecord]:
        """Return the jobs with exactly this recorded text, the newest first."""
        return list(self._find(text_key(text), lambda record: record.text == text))

    def containing(self, words: str) -> Iterator[JobRecord]:
        """Yield the jobs whose text contains `words`, the newest part first."""
        self.damages = []
        wanted = words.encode("utf-8", "backslashreplace")
        for path in self._parts():
            for record in reversed(self._all(path, wanted)):
                if words in record.text:
                    yield record

    def _find(self, key: int, is_wanted: Callable[[JobRecord], bool]) -> Iterator[JobRecord]:
        self.damages = []
        for path in self._parts():
            for record in self._with_key(path, JOB, key):
                if isinstance(record, JobRecord) and is_wanted(record):
                    yield record

    def _parts(self) -> list[Path]:
        """Return the files of records, the newest first."""
        return parts_in(self.directory)[::-1]

    def _all(self, path: Path, containing: bytes = b"") -> list[JobRecord]:
        jobs = (frame for frame in self._frames(path, 0, containing) if frame.kind == JOB)
        return [record for frame in jobs if isinstance(record := parse_record(frame), JobRecord)]

    def _with_key(self, path: Path, kind: bytes, key: int) -> Iterator[JobRecord | BuildRecord]:
        """Yield the records that may have a key, the newest first."""
        index = self._read(path.with_name(index_name(path.name)))
        entries, end = read_index(index, key, size_of_file(path))  # the records are written first
        for frame in reversed(self._frames(path, end)):
            if frame.kind == kind and (record := parse_record(frame)):
                yield record
        if not entries:
            return
        with contextlib.suppress(OSError), _open(path) as file:  # one that cannot be read was said above
            for entry in entries:
                if record := self._record_at(file.fileno(), path, entry):
                    yield record

    def _record_at(self, fd: int, path: Path, entry: IndexEntry) -> JobRecord | BuildRecord | None:
        frames, damage = parse_frames(os.pread(fd, entry.length, entry.offset), entry.offset)
        if damage:
            self.damages.append(DamagedPart(path, damage))
        return parse_record(frames[0]) if len(frames) == 1 else None

    def _frames(self, path: Path, start: int, words: bytes = b"") -> list[RecordFrame]:
        """Return the frames of a file from an offset on that contain `words`."""
        frames, damage = parse_frames(self._read(path, start), start, words)
        if damage:
            self.damages.append(DamagedPart(path, damage))
        return frames

    def _read(self, path: Path, start: int = 0) -> bytes:
        """Return what a file has from an offset on. A file that was removed meanwhile is empty."""
        try:
            with _open(path) as file:
                if start:
                    file.seek(start)
                return file.read()
        except FileNotFoundError:
            return b""
        except OSError:
            self.damages.append(DamagedPart(path, Damage(Wound.UNREADABLE, start)))
            return b""


def _open(path: Path) -> BinaryIO:
    """Open a file. A FIFO that somebody has put in its place holds nobody up."""
    return open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def parts_in(directory: Path) -> list[Path]:
    """Return the files of records, the oldest first. No symlink, directory or FIFO counts."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    parts = sorted((numbers, name) for name in names if (numbers := part_numbers(name)))
    return [directory / name for _, name in parts]


def size_of_file(path: Path) -> int:
    """Return the bytes of a file. A file that was removed meanwhile is empty."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
