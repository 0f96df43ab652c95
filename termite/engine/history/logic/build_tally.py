"""Count the records of a build's jobs, and end builds that nobody has ended."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from termite.engine.history.logic.job_record import BuildCounts, BuildRecord, JobRecord, Where, Why


class BuildTally:
    """The counts of the jobs of one build that are home. `jobs` is their number."""

    def __init__(self) -> None:
        self.jobs = 0
        self._counts: Counter[str] = Counter()
        self._fallbacks: Counter[str] = Counter()
        self._tied: Counter[str] = Counter()

    def add(self, job: JobRecord, conflicts: int = 0) -> None:
        """Count a job. `conflicts` are the files that another job wrote at the same time."""
        self.jobs += 1
        counts, kind = self._counts, job.cause.kind
        match job.where:
            case Where.WORKER:
                counts["remote"] += 1
            case Where.HERE:
                counts["short" if kind is Why.SHORT else "local"] += 1
            case Where.ANSWERED:
                counts["answered"] += 1
            case Where.CACHE:
                counts["cached"] += 1
        if kind is Why.FORBIDDEN:
            counts["failed"] += 1
        elif kind is Why.FALL_BACK:
            self._fallbacks[job.cause.reason] += 1
        elif kind is Why.TIE:
            self._tied[job.cause.reason] += 1
        if job.has_failed and job.where is not Where.NOWHERE:
            counts["nonzero"] += 1
        if job.attempts:
            counts["retried"] += len(job.attempts)
        if job.dropped_count:
            counts["dropped_writes"] += job.dropped_count
        if conflicts:
            counts["conflicts"] += conflicts

    def counts(self) -> BuildCounts:
        """Return the counts up to now."""
        return BuildCounts(**self._counts, fallbacks=dict(self._fallbacks), tied=dict(self._tied))


def tallied(build: BuildRecord, jobs: Sequence[JobRecord]) -> BuildRecord:
    """Return the record of a build that runs, or has not ended well, with the counts of these jobs.

    The first record of a build counts none. Files that two jobs wrote at the same time are in no
    record of a job, so that they are not counted.
    """
    tally = BuildTally()
    for job in jobs:
        tally.add(job)
    last = max((job.id for job in jobs), default=build.last_job)
    return msgspec.structs.replace(build, jobs=tally.jobs, last_job=last, counts=tally.counts())


def cut_off(build: BuildRecord, jobs: Sequence[JobRecord]) -> BuildRecord:
    """Return the record of a build whose master was killed, and which has these jobs.

    It ends with its last record.
    """
    ended_s = max((job.home_s for job in jobs), default=build.started_s)
    return msgspec.structs.replace(tallied(build, jobs), ended_s=ended_s, is_cut_off=True)
