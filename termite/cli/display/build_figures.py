"""Compute the figures of a build from the records of its jobs."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from termite.cli.display.job_text import begin_s, cause_word, ran_on, run_time_s, slot_time_s
from termite.engine.history.logic.job_record import BuildRecord, JobRecord, Where, Why

CountStep = tuple[float, int]  # from this time on (seconds since the epoch), so many


@dataclass(frozen=True, slots=True)
class BuildFigures:
    """The figures of a build. All times are seconds.

    * `wall_s` is the time from its start to its end, or to the last record if it has not ended.
    * `cpu_s` is what its commands used on workers, and `run_s` how long they ran there.
    * `parallelism` is the mean number of commands that ran on workers at the same time.
    * `by_worker` has for each worker the jobs, their CPU seconds and their failed attempts.
    * `here` has for each cause the number of jobs that ran on the master's machine, most first.
    * `slowest` are the jobs that held a slot for the longest time.
    """

    wall_s: float
    cpu_s: float
    run_s: float
    sent_bytes: int
    received_bytes: int
    parallelism: float
    jobs_in_places: dict[str, int]
    by_worker: "dict[str, WorkerFigures]"
    here: list[tuple[str, int]]
    slowest: list[JobRecord]


@dataclass(slots=True)
class WorkerFigures:
    """The figures of one worker in a build."""

    jobs: int = 0
    cpu_s: float = 0.0
    failed_attempts: int = 0


def build_figures(build: BuildRecord, jobs: Sequence[JobRecord], slowest: int = 10) -> BuildFigures:
    """Return the figures of a build that has these jobs."""
    last_s = max((job.home_s for job in jobs), default=build.started_s)
    wall_s = max((build.ended_s or last_s) - build.started_s, 0.0)
    run_s = sum(run_time_s(job) for job in jobs if job.where is Where.WORKER)
    return BuildFigures(
        wall_s=wall_s,
        cpu_s=sum(job.user_s + job.system_s for job in jobs),
        run_s=run_s,
        sent_bytes=sum(job.sent_bytes for job in jobs),
        received_bytes=sum(job.received_bytes for job in jobs),
        parallelism=run_s / wall_s if wall_s else 0.0,
        jobs_in_places=dict(Counter(job.where.value for job in jobs).most_common()),
        by_worker=_by_worker(jobs),
        here=Counter(_here_word(job) for job in jobs if job.where is Where.HERE).most_common(),
        slowest=sorted(jobs, key=slot_time_s, reverse=True)[:slowest],
    )


def _here_word(job: JobRecord) -> str:
    return "short" if job.cause.kind is Why.SHORT else cause_word(job.cause)


def _by_worker(jobs: Iterable[JobRecord]) -> dict[str, WorkerFigures]:
    found: defaultdict[str, WorkerFigures] = defaultdict(WorkerFigures)
    for job in jobs:
        if job.where is Where.WORKER:
            found[job.worker].jobs += 1
            found[job.worker].cpu_s += job.user_s + job.system_s
        for attempt in job.attempts:
            found[attempt.worker].failed_attempts += 1
    return dict(sorted(found.items()))


def steps(intervals: Iterable[tuple[float, float]]) -> list[CountStep]:
    """Return how many of the intervals hold at each time: an entry for each change, in order.

    Each interval is its start and its end. The last entry has the count 0.
    """
    changes: Counter[float] = Counter()
    for start_s, end_s in intervals:
        if end_s > start_s:
            changes[start_s] += 1
            changes[end_s] -= 1
    count, found = 0, []
    for at_s in sorted(changes):
        if changes[at_s]:
            count += changes[at_s]
            found.append((at_s, count))
    return found


def running_steps(jobs: Iterable[JobRecord]) -> list[CountStep]:
    """Return how many commands had been sent to workers and were not home yet, at each time."""
    return steps((job.sent_s, job.home_s) for job in jobs if ran_on(job))


def waiting_steps(jobs: Iterable[JobRecord]) -> list[CountStep]:
    """Return how many jobs waited for a slot or for something else, at each time."""
    return steps((job.queued_s, job.sent_s or job.home_s) for job in jobs)


_PLACES = {Where.CACHE: "known results"}


def slot_tracks(jobs: Iterable[JobRecord]) -> list[tuple[str, list[JobRecord]]]:
    """Return the jobs by slot, each slot as a name and its jobs in order of time.

    Jobs that ran nowhere are in no track. Jobs whose results were known have tracks of their own.
    Jobs that overlap in one slot get further tracks of it: a slot is free for the next command when
    the command has ended, before its results are home.
    """
    lanes: defaultdict[tuple[str, int], list[list[JobRecord]]] = defaultdict(list)
    for job in sorted(filter(begin_s, jobs), key=lambda job: (begin_s(job), job.home_s, job.id)):
        place = ran_on(job) or _PLACES.get(job.where, "")
        slot_lanes = lanes[place, job.slot]
        free = next((lane for lane in slot_lanes if lane[-1].home_s <= begin_s(job)), None)
        if free is None:
            slot_lanes.append([job])
        else:
            free.append(job)
    return [
        (_track_name(place, slot, at), lane)
        for (place, slot), slot_lanes in sorted(lanes.items())
        for at, lane in enumerate(slot_lanes)
    ]


def _track_name(place: str, slot: int, lane: int) -> str:
    name = f"{place or 'local'} {slot}" if slot >= 0 else place or "local"
    return f"{name} ({lane + 1})" if lane else name
