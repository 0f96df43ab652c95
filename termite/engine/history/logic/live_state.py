"""The state of a master as a reader of its live stream knows it."""

import msgspec

from termite.engine.history.logic.job_record import NOT_KNOWN, BuildRecord, JobRecord, Where
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
    Missed,
    QueueWaits,
    Snapshot,
    WorkerChanged,
    WorkerLeft,
    WorkerState,
)

RETURNING_S = 1.0  # a job whose results have been coming for so long is shown as running


class LiveState:
    """The state that the events up to now make. Views show it and keep nothing of their own.

    `jobs` are not home yet, by their ids in the order in which they came. `builds` run now.
    `home_counts` has the number of jobs that came home since the last snapshot, by build: the
    builds of the snapshot have counted the others. `all_home` counts all since the first snapshot.
    `last_home` is the last record that came home, and `missed` counts missed events.
    """

    def __init__(self) -> None:
        self.at_s = 0.0
        self.master = MasterState(pid=0, tree="")
        self.jobs: dict[int, JobRecord] = {}
        self.builds: dict[int, BuildRecord] = {}
        self.workers: dict[str, WorkerState] = {}
        self.home_counts: dict[int, int] = {}
        self.all_home = 0
        self.last_home: JobRecord | None = None
        self.waits_for = ""
        self.missed = 0

    def running(self, now_s: float) -> list[JobRecord]:
        """Return the jobs whose commands run now, or whose results have been coming for a while.

        The event that a job is home comes up to half a second after it, so that a job whose command
        has just ended counts as home.
        """
        return [
            job
            for job in self.jobs.values()
            if job.sent_s and not job.home_s and (not job.ended_s or now_s - job.ended_s > RETURNING_S)
        ]

    @property
    def builds_now(self) -> list[BuildRecord]:
        """The builds that run, with the number of their jobs that are home now."""
        homes = self.home_counts
        return [msgspec.structs.replace(one, jobs=one.jobs + homes.get(one.id, 0)) for one in self.builds.values()]

    @property
    def waiting(self) -> list[JobRecord]:
        """The jobs that wait for a slot, or for something else."""
        return [job for job in self.jobs.values() if not job.sent_s and not job.home_s]

    def apply(self, event: Event) -> None:
        """Change the state by one event. An event about an unknown job changes nothing."""
        match event:
            case Snapshot():
                self._replace(event)
            case JobQueued(job=job) | JobSent(job=job):
                self.jobs[job.id] = job
            case JobEnded() | JobRetried() if known := self.jobs.get(event.id):
                self.jobs[event.id] = _ended(event, known) if isinstance(event, JobEnded) else _again(event, known)
            case JobHome(job=job):
                self.jobs.pop(job.id, None)
                self.home_counts[job.build] = self.home_counts.get(job.build, 0) + 1
                self.all_home += 1
                self.last_home = job
            case BuildStarted(build=build):
                self.builds[build.id] = build
            case BuildEnded(build=build):
                self.builds.pop(build.id, None)
            case WorkerChanged(worker=worker):
                self.workers[worker.name] = worker
            case WorkerLeft(name=name):
                self.workers.pop(name, None)
            case QueueWaits(waits_for=waits_for):
                self.waits_for = waits_for
            case Missed(count=count):
                self.missed += count

    def _replace(self, snapshot: Snapshot) -> None:
        self.at_s, self.master, self.waits_for = snapshot.at_s, snapshot.master, snapshot.waits_for
        self.jobs = {job.id: job for job in snapshot.jobs}
        self.builds = {build.id: build for build in snapshot.builds}
        self.workers = {worker.name: worker for worker in snapshot.workers}
        self.home_counts = {}


def _ended(event: JobEnded, job: JobRecord) -> JobRecord:
    return msgspec.structs.replace(
        job,
        started_s=event.started_s,
        ended_s=event.ended_s,
        exit_code=event.exit_code,
        signal=event.signal,
    )


def _again(event: JobRetried, job: JobRecord) -> JobRecord:
    return msgspec.structs.replace(
        job,
        where=Where.UNDECIDED,
        worker="",
        slot=NOT_KNOWN,
        sent_s=0.0,
        started_s=0.0,
        ended_s=0.0,
        exit_code=NOT_KNOWN,
        signal=0,
        attempts=(*job.attempts, event.attempt),
    )
