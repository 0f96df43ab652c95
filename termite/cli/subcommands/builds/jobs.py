"""List the jobs of a build."""

import json
from argparse import Namespace
from collections.abc import Callable, Iterable

from termite.cli.amounts import counted, parse_positive
from termite.cli.flags import print_line
from termite.cli.parser import Parser
from termite.cli.readers.recorded_builds import RecordedBuilds, recorded_builds_here
from termite.cli.subcommands.builds.last import say_remarks
from termite.cli.subcommands.registry import Subcommand
from termite.engine.history.logic.job_record import JobRecord, Where, as_object
from termite.engine.nearest_name import nearest_name, wrong_name


def _add_flags(parser: Parser) -> None:
    parser.add_argument("filter", nargs="*", metavar="WORD", help="list only jobs whose command contains each WORD")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--build", default="", metavar="BUILD", help="number of the build; default: the newest one")
    which.add_argument("--all", action="store_true", help="list the jobs of all recorded builds")
    parser.add_argument("--failed", action="store_true", help="list only jobs that failed")
    parser.add_argument("--retried", action="store_true", help="list only jobs with a failed attempt")
    parser.add_argument("--local", action="store_true", help="list only jobs that ran on this machine")
    parser.add_argument("--worker", default="", metavar="NAME", help="list only jobs that were tried on this worker")
    parser.add_argument("--slowest", type=parse_positive, default=0, metavar="N", help="list the N slowest ones")
    parser.add_argument("--json", action="store_true", help="print a JSON object for each job, a line each")


def _run(flags: Namespace) -> int:
    from termite.cli.display.build_text import JOB_HEAD, job_line, unrecorded_text
    from termite.cli.display.job_text import slot_time_s

    records = recorded_builds_here()
    newest = records.build(flags.build)
    builds = [build.id for build in reversed(records.past.builds())] if flags.all else [newest.id]
    found = [job for build in builds for job in records.past.jobs(build)]
    if flags.worker and not any(map(_was_on(flags.worker), found)):
        _check_worker(flags.worker, records)
    jobs = list(_chosen(found, flags))
    if flags.slowest > 0:
        jobs = sorted(jobs, key=slot_time_s, reverse=True)[: flags.slowest]
    if flags.json:
        for job in jobs:
            print(json.dumps(as_object(job)))
    elif jobs:
        print("\n".join([JOB_HEAD, *map(job_line, jobs)]))
    else:
        whose = counted(len(builds), "build") if flags.all else f"build {newest.id}"
        none = f"none of the {counted(len(found), 'recorded job')} of {whose} matches"
        print_line("termite-ctl", none if found else f"no job of {whose} is recorded")
    if not flags.all and (lost := unrecorded_text(newest, len(found))):
        print_line("termite-ctl", f"records of build {newest.id}: {lost}")
    say_remarks(records)
    return 0


def _check_worker(name: str, records: RecordedBuilds) -> None:
    """Raise UserError if a worker's name is probably misspelt.

    A worker that is known from another build, or has lost its jobs, had only no job of this build.
    """
    past = records.past
    known = {worker for build in past.builds() for job in past.jobs(build.id) for worker in _workers_of(job)}
    if name not in known and nearest_name(name, known):
        raise wrong_name("worker", name, known)


def _was_on(name: str) -> Callable[[JobRecord], bool]:
    return lambda job: name in _workers_of(job)


def _workers_of(job: JobRecord) -> set[str]:
    """Return the workers on which a job was tried."""
    return {name for name in (job.worker, *(attempt.worker for attempt in job.attempts)) if name}


def _chosen(jobs: Iterable[JobRecord], flags: Namespace) -> Iterable[JobRecord]:
    for job in jobs:
        if flags.failed and not (job.has_failed or (job.where is Where.NOWHERE)):
            continue
        if flags.retried and not job.attempts:
            continue
        if flags.local and job.where is not Where.HERE:
            continue
        if flags.worker and not _was_on(flags.worker)(job):
            continue
        if all(word in job.text for word in flags.filter):
            yield job


SUBCOMMAND = Subcommand(
    "list the jobs of a build: where each ran, how long it took, and how it ended",
    _run,
    _add_flags,
    example="termite-ctl jobs --slowest 10",
)
