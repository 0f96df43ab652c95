"""Measurements as values: samples, medians, ratios within a round, targets. No I/O happens here.

A machine's speed changes from one minute to the next. Therefore only ratios of samples of one round
mean anything: the sides of a round alternate or take turns. A figure keeps all its samples; the
table shows their median, least and most.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Target:
    """A target is a limit that a median should reach; `at_most` says from which side."""

    limit: float
    at_most: bool = True

    def is_reached(self, value: float) -> bool:
        """Return True if `value` is on the right side of the limit, or equal to it."""
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure is one line of the table.

    `unit` is `x` for ratios and "" for counts; `samples` has one value per round, in order.
    """

    workload: str
    name: str
    unit: str
    samples: tuple[float, ...]
    target: Target | None = None

    @property
    def median(self) -> float:
        """The median of the samples."""
        return median(self.samples)

    @property
    def is_reached(self) -> bool | None:
        """True if the median reaches the target; None if there is no target."""
        return None if self.target is None else self.target.is_reached(self.median)


@dataclass(frozen=True, slots=True)
class Measured:
    """A measurement has one run's wall time, CPU of the machine, and CPU of the benchmark.

    `own_s` is NaN if the benchmark has no cgroup that counts it.
    """

    wall_s: float
    machine_s: float
    own_s: float


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets are the limits of one side's wall time and CPU, as ratios to the plain side."""

    wall: Target | None = None
    cpu: Target | None = None


NO_TARGETS = Targets()


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """Return ours / theirs of each round; skip a round in which theirs is 0."""
    return tuple(our / their for our, their in zip(ours, theirs, strict=True) if their > 0)


def of_plain(workload: str, plain: Sequence[Measured]) -> list[Figure]:
    """Return the figures of the plain side, in seconds: all other sides are compared with it."""
    figures = [_wall(workload, "plain", plain)]
    if not any(math.isnan(run.own_s) for run in plain):
        figures.append(Figure(workload, "plain: CPU", "s", tuple(run.own_s for run in plain)))
    return figures


def compared(
    workload: str, side: str, runs: Sequence[Measured], plain: Sequence[Measured], targets: Targets = NO_TARGETS
) -> list[Figure]:
    """Return the figures that compare one side with the plain one.

    The CPU target applies to the benchmark's own CPU if that is known. Otherwise it applies to the
    whole machine's CPU, which includes the work of other users.
    """
    has_own = not any(math.isnan(run.own_s) for run in (*runs, *plain))
    figures = [
        _wall(workload, side, runs),
        _ratio(workload, f"{side} / plain: wall", runs, plain, lambda run: run.wall_s, targets.wall),
    ]
    if has_own:
        figures.append(_ratio(workload, f"{side} / plain: CPU", runs, plain, lambda run: run.own_s, targets.cpu))
    machine_target = None if has_own else targets.cpu
    machine = f"{side} / plain: CPU of the whole machine"
    figures.append(_ratio(workload, machine, runs, plain, lambda run: run.machine_s, machine_target))
    return figures


def strangers(runs: Sequence[Measured]) -> float:
    """Return the share of the machine's work that was not ours; NaN if ours is unknown."""
    whole, own = sum(run.machine_s for run in runs), sum(run.own_s for run in runs)
    if math.isnan(own) or not whole:
        return math.nan
    return max(0.0, 1 - own / whole)


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the interval that has the true median with this confidence, whatever the distribution.

    The interval is the narrowest symmetric pair of ranks that the binomial distribution allows (W.
    J. Conover, Practical Nonparametric Statistics, 3.2). Return None if there are too few samples:
    fewer than six for a confidence of 0.95.
    """
    count = len(samples)
    outside, rank = 0.0, 0
    while rank < count // 2 and (outside := outside + 2 * math.comb(count, rank) / 2**count) <= 1 - confidence:
        rank += 1
    if not rank:
        return None
    ordered = sorted(samples)
    return ordered[rank - 1], ordered[count - rank]


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the smallest sample that `percent` % of the samples do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def slot_use(intervals: Sequence[tuple[float, float]], slots: int, left: int) -> float:
    """Return the busy share of `slots` from the first start until only `left` jobs remain.

    `intervals` has the start and end of each job, in seconds. After that moment slots are idle only
    because no work is left for them. Raise ValueError if there are no more than `left` jobs.
    """
    ends = sorted(end for _, end in intervals)
    if len(ends) <= left:
        raise ValueError(f"{len(ends)} jobs are too few to leave out the last {left}")
    begin, until = min(start for start, _ in intervals), ends[len(ends) - left - 1]
    busy = sum(max(0.0, min(end, until) - start) for start, end in intervals)
    return busy / (slots * (until - begin))


def _wall(workload: str, side: str, runs: Sequence[Measured]) -> Figure:
    return Figure(workload, f"{side}: wall", "s", tuple(run.wall_s for run in runs))


def _ratio(
    workload: str,
    name: str,
    runs: Sequence[Measured],
    plain: Sequence[Measured],
    of: Callable[[Measured], float],
    target: Target | None,
) -> Figure:
    return Figure(workload, name, "x", ratios([of(run) for run in runs], [of(run) for run in plain]), target)
