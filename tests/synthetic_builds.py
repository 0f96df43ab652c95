"""Make builds of any size, for tests of everything that shows records.

All values are known: a test computes what a view must show from the records themselves. The same
arguments always make the same build.
"""

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from termite.engine.errors import Reason
from termite.engine.history.logic.job_record import (
    NOT_KNOWN,
    BuildCounts,
    BuildRecord,
    Cause,
    FailedAttempt,
    JobRecord,
    Where,
    Why,
)
from termite.engine.history.logic.live_events import (
    BuildEnded,
    BuildStarted,
    Event,
    JobEnded,
    JobHome,
    JobQueued,
    JobRetried,
    JobSent,
    MasterState,
    Snapshot,
    WorkerState,
)
from termite.engine.history.record_writer import PackedRecords, RecordWriter
from termite.engine.model import How

START_S = 1_700_000_000.0
TREE = "/home/user/project"
HOSTILE_TEXT = "gcc -DX='<script>alert(1)</script>' -o 'a b.o' \x1b[31m\u202e'c\nd.c'"
# Each build of at least that many jobs has every kind of record.
EVERY_KIND = 20


class SyntheticBuild(NamedTuple):
    """A build that has ended, with the records of its jobs in the order in which they came home."""

    build: BuildRecord
    jobs: list[JobRecord]


def synthetic_build(
    jobs: int = 1000,
    number: int = 1,
    first_job: int = 1,
    workers: Sequence[str] = ("alpha", "beta", "gamma"),
    slots: int = 8,
) -> SyntheticBuild:
    """Return a build of `jobs` jobs on `workers` with `slots` slots each.

    No two jobs are at the same time in one slot. About one job in ten runs here: by a rule, as
    short, by a tie or after a fall-back. Some failed, some were retried, one was cancelled, one
    has a hostile text.
    """
    chance = random.Random(number)
    began_s = START_S + 10_000 * number
    free_s = {(worker, slot): began_s for worker in (*workers, "") for slot in range(slots)}
    records = [
        _job(chance, began_s, first_job + at, number, free_s, kind)
        for at, kind in zip(range(jobs), itertools.cycle(range(EVERY_KIND)), strict=False)
    ]
    records.sort(key=lambda job: job.home_s)
    ended_s = max((job.home_s for job in records), default=began_s) + 0.1
    build = BuildRecord(
        id=number,
        started_s=began_s,
        ended_s=ended_s,
        front_end="make",
        text=f"make -j{len(workers) * slots}",
        cwd=TREE,
        tree=TREE,
        version="0.1.0",
        pid=4000 + number,
        exit_code=2,
        jobs=jobs,
        expected_jobs=jobs,
        last_job=first_job + jobs - 1,
        counts=counts_of(records),
    )
    return SyntheticBuild(build, records)


def synthetic_history(builds: int = 20, jobs: int = 50) -> list[SyntheticBuild]:
    """Return several builds, the oldest first."""
    return [synthetic_build(jobs, number, 1 + (number - 1) * jobs) for number in range(1, builds + 1)]


def write_history(directory: Path, builds: Iterable[SyntheticBuild]) -> None:
    """Write builds as a master does. They must come in the order of their numbers."""
    writer = RecordWriter(directory)
    for build, jobs in builds:
        assert writer.start(build.id)
        packed = PackedRecords(build.id)
        packed.add(msgspec.structs.replace(build, ended_s=0.0, exit_code=NOT_KNOWN, jobs=0, counts=BuildCounts()))
        for job in jobs:
            packed.add(job)
        packed.add(build)
        writer.write(packed)
        writer.end(build.id)
    writer.close()


def events_of(synthetic: SyntheticBuild, workers: Sequence[str] = ("alpha", "beta", "gamma")) -> list[Event]:
    """Return the events of a build in the order of their times, with a Snapshot before them."""
    build, jobs = synthetic
    started = msgspec.structs.replace(build, ended_s=0.0, exit_code=NOT_KNOWN, jobs=0, counts=BuildCounts())
    timed: list[tuple[float, int, Event]] = []
    for job in jobs:
        timed += [(at_s, order, event) for order, (at_s, event) in enumerate(_events_of_job(job))]
    timed.sort(key=lambda entry: entry[:2])
    states = tuple(WorkerState(name=name, slots=8, cores=8, load=1.5, free_memory_bytes=2**34) for name in workers)
    master = MasterState(pid=4711, tree=TREE, version="0.1.0", started_s=START_S, local_slots=2)
    first = Snapshot(at_s=build.started_s, master=master, workers=states)
    return [first, BuildStarted(started), *(event for _, _, event in timed), BuildEnded(build)]


def counts_of(jobs: Iterable[JobRecord]) -> BuildCounts:
    """Return the counts that the records of a build must give."""
    counts: Counter[str] = Counter()
    fallbacks: Counter[str] = Counter()
    tied: Counter[str] = Counter()
    for job in jobs:
        counts["remote"] += job.where is Where.WORKER
        counts["short"] += job.cause.kind is Why.SHORT
        counts["local"] += job.where is Where.HERE and job.cause.kind is not Why.SHORT
        counts["answered"] += job.where is Where.ANSWERED
        counts["failed"] += job.cause.kind is Why.FORBIDDEN
        counts["nonzero"] += job.where is not Where.NOWHERE and job.has_failed
        counts["retried"] += len(job.attempts)
        counts["dropped_writes"] += job.dropped_count
        fallbacks[job.cause.reason] += job.cause.kind is Why.FALL_BACK
        tied[job.cause.reason] += job.cause.kind is Why.TIE
    return BuildCounts(**counts, fallbacks=dict(+fallbacks), tied=dict(+tied))


def _job(
    chance: random.Random,
    began_s: float,
    number: int,
    build: int,
    free_s: dict[tuple[str, int], float],
    kind: int,
) -> JobRecord:
    where, cause = _KINDS.get(kind, (Where.WORKER, Cause(Why.NO_RULE)))
    text = HOSTILE_TEXT if kind == 7 else f"gcc -O2 -Iinclude -c src/file{number}.c -o build/file{number}.o"
    bare = JobRecord(id=number, build=build, text=text, cwd=f"{TREE}/src", where=where, cause=cause, tool="make")
    queued_s = began_s + chance.uniform(0.0, 1.0)
    if where in (Where.ANSWERED, Where.NOWHERE):
        code = {Where.ANSWERED: 0, Where.NOWHERE: 103}[where]
        return msgspec.structs.replace(bare, queued_s=queued_s, home_s=queued_s + 0.001, exit_code=code)
    places = [place for place in free_s if bool(place[0]) == (where is Where.WORKER)]
    place = min(places, key=lambda place: free_s[place])
    sent_s = max(free_s[place], queued_s)
    started_s = sent_s + 0.01
    ended_s = started_s + chance.uniform(0.05, 4.0)
    home_s = ended_s + chance.uniform(0.001, 0.1)
    free_s[place] = home_s
    record = msgspec.structs.replace(
        bare,
        how=How.SHELL,
        plugin="make",
        worker=place[0],
        slot=place[1],
        queued_s=queued_s,
        sent_s=sent_s,
        started_s=started_s,
        ended_s=ended_s,
        home_s=home_s,
        files=(b"build/file%d.o" % number,),
        file_count=1,
        pid=10_000 + number,
    )
    return _with_figures(chance, record, kind) if where is Where.WORKER else record


def _with_figures(chance: random.Random, job: JobRecord, kind: int) -> JobRecord:
    attempt = FailedAttempt("delta", Reason.CONNECTION_LOST.value, "the worker went away", job.sent_s - 0.5)
    job = msgspec.structs.replace(
        job,
        exit_code=0,
        user_s=(job.ended_s - job.started_s) * 0.8,
        system_s=(job.ended_s - job.started_s) * 0.1,
        peak_memory_bytes=chance.randrange(10**7, 10**9),
        sent_bytes=chance.randrange(10**3, 10**6),
        received_bytes=chance.randrange(10**3, 10**6),
        fuse_requests=chance.randrange(1, 50),
        wire_requests=chance.randrange(1, 10),
    )
    match kind:
        case 8:
            output = b"src/x.c:1:1: error: \x1b[1mexpected ';'\x1b[0m\n"
            return msgspec.structs.replace(job, exit_code=1, output=output, output_bytes=len(output), files=())
        case 9:
            return msgspec.structs.replace(job, exit_code=NOT_KNOWN, signal=9)
        case 10:
            return msgspec.structs.replace(job, attempts=(attempt,), ran_again=True)
        case 11:
            return msgspec.structs.replace(job, dropped=(b"/home/user/.cache/x",), dropped_count=1)
        case 12:
            return msgspec.structs.replace(job, output_bytes=10_000, is_output_kept=False)
    return job


_RULE = Cause(Why.RULE, regexp="^ar ", source=".termite-localrc: entry 1")
_KINDS = {
    0: (Where.HERE, _RULE),
    1: (Where.HERE, Cause(Why.SHORT)),
    2: (Where.HERE, Cause(Why.TIE, Reason.WRITES_OUTSIDE.value, "/home/user/.ccache")),
    3: (Where.HERE, Cause(Why.FALL_BACK, Reason.NO_WORKER.value, "no worker is registered")),
    4: (Where.ANSWERED, Cause(Why.NO_OP)),
    5: (Where.NOWHERE, Cause(Why.FORBIDDEN, Reason.NO_WORKER.value, "TERMITE_LOCAL=never")),
    6: (Where.NOWHERE, Cause(Why.CANCELLED)),
}


def _events_of_job(job: JobRecord) -> list[tuple[float, Event]]:
    """Return the events of one job with their times."""
    queued = JobRecord(id=job.id, build=job.build, text=job.text, cwd=job.cwd, tool=job.tool, queued_s=job.queued_s)
    events: list[tuple[float, Event]] = [(job.queued_s, JobQueued(queued))]
    events += [(attempt.at_s, JobRetried(job.id, attempt)) for attempt in job.attempts]
    if job.sent_s:
        sent = msgspec.structs.replace(
            queued,
            where=job.where,
            cause=job.cause,
            worker=job.worker,
            slot=job.slot,
            sent_s=job.sent_s,
            attempts=job.attempts,
        )
        events.append((job.sent_s, JobSent(sent)))
        if job.where is Where.WORKER:
            ended = JobEnded(job.id, job.started_s, job.ended_s, job.exit_code, job.signal)
            events.append((job.ended_s, ended))
    return [*events, (job.home_s, JobHome(job))]
