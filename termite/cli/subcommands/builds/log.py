"""Show everything that was recorded of a job, which a number or a file names."""

import json
import os
from argparse import Namespace
from collections.abc import Iterable, Iterator
from typing import NoReturn

from termite.cli.flags import print_line
from termite.cli.parser import Parser
from termite.cli.readers.recorded_builds import RecordedBuilds, recorded_builds_here
from termite.cli.readers.suspected_writers import files_of_name, is_written_since, writers_here
from termite.cli.subcommands.builds.last import say_remarks
from termite.cli.subcommands.registry import Subcommand
from termite.engine.errors import UserError
from termite.engine.history.logic.job_record import JobRecord, as_object
from termite.engine.wire.protocol.foreign_text import LONGEST_LINE, printable

NAMED_FILES = 5
NEWLINE = "\n"
JOBS_HINT = "termite-ctl jobs -all lists those of the last 20 builds, and termite-ctl top those that run now"


def _add_flags(parser: Parser) -> None:
    parser.add_argument(
        "job", metavar="JOB | FILE", help="number of a job, or a file that a job on a worker has written"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run(flags: Namespace) -> int:
    from termite.cli.display.job_text import job_lines

    records = recorded_builds_here()
    found = find_jobs(records, flags.job) or _refuse(records, flags.job)
    doubts = doubt_lines(records, flags.job, found[0])
    if flags.json:
        print(json.dumps(as_object(found[0]), indent=2))
        for line in doubts:
            print_line("termite-ctl", line.removeprefix("but").strip())
    else:
        print("\n".join((*job_lines(found[0], str(records.tree)), *doubts)))
        if others := ", ".join(str(job.id) for job in found[1:6]):
            print(f"earlier   {others}")
    say_remarks(records)
    return 0


def find_jobs(records: RecordedBuilds, word: str) -> list[JobRecord]:
    """Return the jobs that a word names, the newest first: by number, by file, or by a file's name.

    A name without its directory counts if all recorded files of that name are one file. Return []
    if there is no such job.
    """
    if (found := records.find(word)) or "/" in word:
        return found
    files = files_of_name(records, word)
    return records.past.made(files[0]) if len(files) == 1 else []


def doubt_lines(records: RecordedBuilds, word: str, job: JobRecord) -> list[str]:
    """Return lines that say that the file which `word` names was written later, and by whom.

    Return [] if the word names no file of the job, or if the file is as the job has left it.
    """
    path, name = records.below_tree(word), os.fsencode(word)
    if path not in job.files:
        path = next((path for path in job.files if path.rpartition(b"/")[2] == name), None)
    if path is None or not is_written_since(file := records.tree / os.fsdecode(path), job):
        return []
    if not os.path.lexists(file):
        return ["but       the file is no longer there"]
    jobs = writers_here(records, path, job)
    if not jobs:
        return ["but       the file was written later: by a command on this machine, or by hand"]
    return ["but       the file was written later, perhaps by a command that ran on this machine:", *_named(jobs)]


def _named(jobs: Iterable[JobRecord]) -> Iterator[str]:
    for job in jobs:
        yield printable(f"          job {job.id} of build {job.build}: {job.text.partition(NEWLINE)[0]}", LONGEST_LINE)


def _refuse(records: RecordedBuilds, word: str) -> NoReturn:
    """Raise UserError: no job is or wrote what the word names. Name what may have been meant."""
    if word.isdecimal():
        raise UserError(f"no job {word} is recorded, nor one that wrote a file {word}", hint=JOBS_HINT)
    hint = "termite-ctl jobs lists those of the last build; local commands record no files"
    path = records.below_tree(word)
    if path and (jobs := writers_here(records, path, None)):
        hint = f"local commands record no files; this one may have written it: termite-ctl log {jobs[0].id}"
    elif files := files_of_name(records, word):
        named = ", ".join(os.path.relpath(records.tree / os.fsdecode(file)) for file in files[:NAMED_FILES])
        hint = f"files of that name: {printable(named)}"
    raise UserError(f"no recorded job wrote {word}", hint=hint)


SUBCOMMAND = Subcommand(
    "show everything that was recorded of one job, with the end of its output",
    _run,
    _add_flags,
    more="A file names the newest job on a worker that wrote it. Local commands record no files: if the file "
    "was written later, those that may have done it are named.",
    example="termite-ctl log build/x.o",
)
