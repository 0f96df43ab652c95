"""What was measured, as values: samples, medians, ratios of one round, targets. Pure.

A machine is never as fast in one minute as in the next, so only ratios of samples of one round mean anything: side by
side, in alternation. A figure keeps all its samples; the table shows their median, least and most.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Target:
    """What a median should reach."""

    limit: float
    at_most: bool = True

    def is_reached(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `unit` is `x` for ratios; `samples` are one per round, in order."""

    workload: str
    name: str
    unit: str
    samples: tuple[float, ...]
    target: Target | None = None

    @property
    def median(self) -> float:
        return median(self.samples)

    @property
    def is_reached(self) -> bool | None:
        """None: nothing is to be reached."""
        return None if self.target is None else self.target.is_reached(self.median)


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: wall time, CPU of the whole machine, CPU of what was started here (NaN where nobody counts that)."""

    wall_s: float
    machine_s: float
    own_s: float


@dataclass(frozen=True, slots=True)
class Targets:
    """Of a side, as ratios to the plain one."""

    wall: Target | None = None
    cpu: Target | None = None


NO_TARGETS = Targets()


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """Round by round; a round in which nothing was measured on the other side gives none."""
    return tuple(our / their for our, their in zip(ours, theirs, strict=True) if their > 0)


def of_plain(workload: str, plain: Sequence[Measured]) -> list[Figure]:
    """The side that all others are compared with, in seconds."""
    figures = [_wall(workload, "plain", plain)]
    if not any(math.isnan(run.own_s) for run in plain):
        figures.append(Figure(workload, "plain: CPU", "s", tuple(run.own_s for run in plain)))
    return figures


def compared(
    workload: str, side: str, runs: Sequence[Measured], plain: Sequence[Measured], targets: Targets = NO_TARGETS
) -> list[Figure]:
    """One side against the plain one. The target of the CPU is on what was started here, where that is known: the
    whole machine's has the work of strangers in it."""
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
    """The share of the machine's work in these runs that was not ours; NaN where nobody counted."""
    whole, own = sum(run.machine_s for run in runs), sum(run.own_s for run in runs)
    if math.isnan(own) or not whole:
        return math.nan
    return max(0.0, 1 - own / whole)


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Where the true median is, with that confidence, whatever the distribution: the narrowest pair of samples, as far
    from the least as from the most, that the binomial distribution allows (W. J. Conover, Practical Nonparametric
    Statistics, 3.2). None: too few samples, below six for 0.95."""
    count = len(samples)
    outside, rank = 0.0, 0
    while rank < count // 2 and (outside := outside + 2 * math.comb(count, rank) / 2**count) <= 1 - confidence:
        rank += 1
    if not rank:
        return None
    ordered = sorted(samples)
    return ordered[rank - 1], ordered[count - rank]


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that is not below `percent` of them (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def slot_use(intervals: Sequence[tuple[float, float]], slots: int, left: int) -> float:
    """The share of `slots` that were busy from the first start until `left` jobs had not ended yet.

    `intervals`: start and end of each job. After that moment slots are empty because there is no work for them.
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
