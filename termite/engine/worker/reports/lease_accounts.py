"""Count what the jobs of leases use, from the lines of their mirrors.

A mirror sends a line when a job starts or ends, and none in between. The time since its last line
is therefore added for the jobs that run.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from termite.engine.wire.protocol.control_lines import MirrorNotice
from termite.engine.wire.protocol.fleet_messages import LeaseReport, SlotUse

MOST_RUNNING = 1_000_000  # a mirror is not trusted, and the wire takes no larger numbers
MOST_JOBS = 2**53
MOST_S = 1e9


@dataclass(slots=True)
class LeaseAccount:
    """The account of one lease, or of several together. Times are those of the worker's clock.

    `user` is `user@host`. The other fields are those of LeaseReport.
    """

    user: str
    since_s: float
    running: int = 0
    jobs: int = 0
    cpu_s: float = 0.0
    job_s: float = 0.0
    busy_s: float = 0.0
    noted_s: float = 0.0

    def note(self, line: MirrorNotice, now_s: float) -> None:
        """Take in a line of the lease's mirror. A sum never becomes smaller."""
        if line.running is None:
            return
        self.noted_s = now_s
        self.running = min(line.running, MOST_RUNNING)
        self.jobs = max(self.jobs, line.jobs)
        self.cpu_s = max(self.cpu_s, line.cpu_s)
        self.job_s = max(self.job_s, line.job_s)
        self.busy_s = max(self.busy_s, line.busy_s)

    def report(self, slots: int, now_s: float, *, is_private: bool) -> LeaseReport:
        """Return what people see. Only a private report names the user."""
        meanwhile_s = max(now_s - self.noted_s, 0.0) if self.running else 0.0
        return LeaseReport(
            user=self.user if is_private else "",
            since_s=_seconds(now_s - self.since_s),
            slots=slots,
            running=self.running,
            jobs=min(self.jobs, MOST_JOBS),
            cpu_s=_seconds(self.cpu_s),
            job_s=_seconds(self.job_s + self.running * meanwhile_s),
            busy_s=_seconds(self.busy_s + meanwhile_s),
        )

    def add(self, ended: "LeaseAccount") -> None:
        """Add the sums of a lease that has ended."""
        self.jobs += ended.jobs
        self.cpu_s += ended.cpu_s
        self.job_s += ended.job_s
        self.busy_s += ended.busy_s


def total_of(before: LeaseReport, leases: Iterable[LeaseReport]) -> LeaseReport:
    """Return the sum over the ended leases, which `before` has, and over those that are open."""
    every = [before, *leases]
    return LeaseReport(
        user="",
        since_s=before.since_s,
        slots=sum(one.slots for one in every),
        running=min(sum(one.running for one in every), MOST_RUNNING),
        jobs=min(sum(one.jobs for one in every), MOST_JOBS),
        cpu_s=_seconds(sum(one.cpu_s for one in every)),
        job_s=_seconds(sum(one.job_s for one in every)),
        busy_s=_seconds(sum(one.busy_s for one in every)),
    )


def uses_of(leases: Iterable[tuple[LeaseAccount, int]]) -> tuple[SlotUse, ...]:
    """Return who uses how many slots, for leases with their slots."""
    uses: dict[str, SlotUse] = {}
    for account, slots in leases:
        known = uses.get(account.user, SlotUse(account.user, 0, 0))
        running = min(known.running + account.running, MOST_RUNNING)
        uses[account.user] = SlotUse(account.user, known.slots + slots, running)
    return tuple(sorted(uses.values(), key=lambda use: use.user))


def _seconds(span_s: float) -> float:
    return min(max(span_s, 0.0), MOST_S)
