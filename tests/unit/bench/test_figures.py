"""bench/: the statistics of samples, and the lines of the table."""

import math
from typing import Any

import pytest

from bench.cpu import busy_ticks, stolen_ticks
from bench.figures import (
    Figure,
    Measured,
    Target,
    Targets,
    compared,
    median_interval,
    of_plain,
    percentile,
    ratios,
    slot_use,
    strangers,
)
from bench.pooled import pooled
from bench.report import Part, number, row, warnings
from bench.rounds import BenchError
from tests.unit.tables import each_row

PLAIN = [Measured(2.0, 4.0, 3.0), Measured(4.0, 5.0, 3.0)]
TERMITE = [Measured(2.2, 5.0, 3.3), Measured(4.2, 5.0, 3.0)]


def test_ratios_are_of_one_round_each() -> None:
    assert ratios([2.0, 9.0], [1.0, 3.0]) == (2.0, 3.0)
    assert ratios([2.0, 9.0], [0.0, 3.0]) == (3.0,)


def test_a_side_is_compared_round_by_round_and_its_median_with_the_target() -> None:
    targets = Targets(wall=Target(1.08), cpu=Target(1.04))
    figures = {figure.name: figure for figure in compared("w", "termite", TERMITE, PLAIN, targets)}
    assert figures["termite / plain: wall"].samples == pytest.approx((1.1, 1.05))
    assert figures["termite / plain: wall"].is_reached is True
    assert figures["termite / plain: CPU"].samples == pytest.approx((1.1, 1.0))
    assert figures["termite / plain: CPU"].is_reached is False
    assert figures["termite / plain: CPU of the whole machine"].is_reached is None


def test_where_nobody_counts_our_own_cpu_the_machines_is_judged() -> None:
    uncounted = [Measured(1.0, 2.0, math.nan)]
    figures = {figure.name: figure for figure in compared("w", "t", uncounted, uncounted, Targets(cpu=Target(1.0)))}
    assert "t / plain: CPU" not in figures
    assert figures["t / plain: CPU of the whole machine"].is_reached is True
    assert [figure.name for figure in of_plain("w", uncounted)] == ["plain: wall"]


def test_a_target_may_be_a_least() -> None:
    assert Target(92.0, at_most=False).is_reached(92.0)
    assert not Target(92.0, at_most=False).is_reached(91.9)
    assert str(Target(92.0, at_most=False)) == ">= 92"


def test_strangers_have_the_rest_of_the_machines_work() -> None:
    assert strangers([Measured(1.0, 4.0, 3.0), Measured(1.0, 4.0, 3.0)]) == 0.25
    assert strangers([Measured(1.0, 4.0, 4.1)]) == 0.0
    assert math.isnan(strangers([Measured(1.0, 4.0, math.nan)]))


def test_a_percentile_is_a_sample_that_was_measured() -> None:
    samples = [float(number) for number in range(100, 0, -1)]
    assert (percentile(samples, 50), percentile(samples, 99), percentile(samples, 100)) == (50.0, 99.0, 100.0)
    assert percentile([7.0], 99) == 7.0


def test_slots_that_are_empty_for_want_of_work_do_not_count() -> None:
    # Two slots; the last job runs alone for long.
    assert slot_use([(0.0, 1.0), (0.0, 1.0), (1.0, 9.0)], slots=2, left=1) == 1.0
    assert slot_use([(0.0, 1.0), (0.5, 1.0), (1.0, 2.0)], slots=2, left=1) == 0.75
    with pytest.raises(ValueError, match="too few"):
        slot_use([(0.0, 1.0)], slots=2, left=1)


def test_idle_disk_and_stolen_time_are_no_work() -> None:
    stat = "cpu  1 2 4 1000 1000 8 16 128 32 64\ncpu0 1 2 3 4 5 6 7 8 9 10\n"
    assert (busy_ticks(stat), stolen_ticks(stat)) == (31, 128)


@each_row(("count", "ranks"), [(5, None), (6, (1, 6)), (8, (1, 8)), (9, (2, 8)), (25, (8, 18)), (100, (40, 61))])
def test_the_interval_of_a_median_has_the_ranks_of_the_binomial_distribution(
    count: int, ranks: tuple[int, int] | None
) -> None:
    samples = [float(rank) for rank in range(count, 0, -1)]
    assert median_interval(samples) == (tuple(map(float, ranks)) if ranks else None)


def test_runs_are_put_together_by_ratio() -> None:
    def run(
        *samples: float,
        strangers: float | None = None,
        stolen: float | None = None,
        short: str = "auto",
        kernel: str = "6.18",
    ) -> dict[str, Any]:
        figures = [
            {"workload": "lua", "name": "termite / plain: wall", "unit": "x", "samples": samples},
            {"workload": "lua", "name": "plain: wall", "unit": "s", "samples": samples},
        ]
        parts = [{"name": "lua", "strangers": strangers, "stolen": stolen, "figures": figures}]
        return {
            "date": "today",
            "machine": {"processor": "P", "cores": 2, "kernel": kernel},
            "settings": {"short": short, "rounds": len(samples)},
            "parts": parts,
        }

    samples, left_out = pooled([run(1.0, 1.1), run(1.2, strangers=0.01), run(9.0, strangers=0.2), run(9.0, stolen=0.1)])
    assert samples == {("lua", "termite / plain: wall"): [1.0, 1.1, 1.2]}
    assert left_out == 2 * ["left out, because the machine was loaded: lua of today"]
    with pytest.raises(BenchError, match="did not measure the same"):
        pooled([run(1.0), run(1.0, kernel="6.1")])
    with pytest.raises(BenchError, match="did not measure the same"):
        pooled([run(1.0), run(1.0, short="0")])


def test_a_row_has_median_least_and_most_and_says_whether_the_target_was_reached() -> None:
    figure = Figure("lua", "termite / plain: wall", "x", (1.2, 1.05, 1.0), Target(1.08))
    assert row(figure) == ("lua", "termite / plain: wall", "1.05", "1.00", "1.20", "3", "<= 1.08", "reached")


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [(0.0, "s", "0.00 s"), (0.0123, "ms", "0.012 ms"), (1.0, "x", "1.00"), (43.21, "s", "43.2 s"), (987.6, "", "988")],
)
def test_a_number_has_the_digits_that_mean_something(value: float, unit: str, shown: str) -> None:
    assert number(value, unit) == shown


def test_a_part_that_others_disturbed_says_so() -> None:
    assert warnings([Part("quiet", (), 1.0, 0.01), Part("unknown", (), 1.0)]) == []
    assert warnings([Part("lua", (), 1.0, 0.7)]) == [
        "lua: measured on a loaded machine: 70% of its work was not this benchmark's"
    ]
    assert warnings([Part("lua", (), 1.0, stolen=0.2), Part("zlib", (), 1.0, stolen=0.01)]) == [
        "lua: the host gave 20% of the machine's time to others"
    ]
