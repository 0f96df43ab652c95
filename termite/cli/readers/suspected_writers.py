"""Find who may have written a file after the newest recorded job that wrote it.

Only jobs on workers have their files in their records: nobody sees what a command on this machine
writes. But the file on disk tells when it was written, and the text of such a command may name it.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from termite.cli.readers.recorded_builds import RecordedBuilds
from termite.engine.history.logic.job_record import JobRecord
from termite.engine.history.logic.record_file import words_of_command

CLOCK_S = 0.1  # a file system's clock ticks, and runs behind
NAMED_WRITERS = 3
_OUTPUT = re.compile(r"""(?:(?:^|\s)-o\s*|>\s*)['"]?([^\s'"`;<>|&()]+)""")


def is_written_since(path: Path, job: JobRecord) -> bool:
    """Return whether a file was written after a job had brought it home, or is gone.

    A command may set any mtime, and only the kernel sets the time of the last change.
    """
    try:
        status = path.lstat()
    except OSError:
        return True
    return min(status.st_mtime, status.st_ctime) > job.home_s + CLOCK_S


def writers_here(records: RecordedBuilds, path: bytes, after: JobRecord | None) -> list[JobRecord]:
    """Return jobs that ran on this machine and may have written a file, the likeliest first.

    `path` is below the tree. The jobs came home after the job `after`; None: at any time. The
    likeliest ones ran when it was written. Among equals, those come first that name its path, and
    then those that name it as their output.
    """
    file = records.tree / os.fsdecode(path)
    found = [(_likeness(job, file), job.id, job) for job in _jobs_here(records, file.name, after)]
    best = max((likeness for likeness, _, _ in found), default=())
    if not any(best):
        return []
    return [job for likeness, _, job in sorted(found, reverse=True) if likeness == best][:NAMED_WRITERS]


def _jobs_here(records: RecordedBuilds, name: str, after: JobRecord | None) -> Iterator[JobRecord]:
    for job in records.past.naming(name):
        if after is not None and job.build < after.build:
            return  # the newest builds come first
        if after is None or job.home_s >= after.home_s:
            yield job


def _likeness(job: JobRecord, file: Path) -> tuple[bool, ...]:
    """Return whether a job ran when a file was written, names its path, and as an output.

    The output follows `-o` or `>`. All is False if the job names another file.
    """
    words = [word.removeprefix("-o") for word in words_of_command(job.text)]
    named = [word for word in words if os.path.basename(word) == file.name]
    if not named:
        return False, False, False
    is_path = any(os.path.normpath(os.path.join(job.cwd, word)) == str(file) for word in named)
    try:
        written_s = file.lstat().st_mtime
    except OSError:
        written_s = 0.0
    is_output = any(os.path.basename(word) == file.name for word in _OUTPUT.findall(job.text))
    return job.sent_s - CLOCK_S <= written_s <= job.home_s + CLOCK_S, is_path, is_output


def files_of_name(records: RecordedBuilds, word: str) -> Sequence[bytes]:
    """Return the recorded files, below the tree, whose last part is the last part of `word`.

    Files of the newest jobs come first.
    """
    name = os.path.basename(word)
    return records.past.files_of_name(os.fsencode(name)) if name else ()
