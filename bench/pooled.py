"""Runs put together: `sh bench/run.sh --pool bench/results/A.json bench/results/B.json ...`.

Only ratios, as each is of one round, and an hour's seconds are no other hour's. Rounds of one run have more in common
than those of two, so an interval is a little narrower than it should be. Whoever pools must see that the runs are of
the same program: of commits between which only documents and the benchmark changed.
"""

from collections.abc import Iterable
from statistics import median
from typing import Any

from rich.table import Table

from bench.figures import median_interval
from bench.report import LOADED, number
from bench.rounds import BenchError

Ratios = dict[tuple[str, str], list[float]]  # samples by workload and figure
MEASURED = ("jobs", "quick", "short", "whole_emacs", "turn_s")  # settings that say what was measured
MACHINE = ("processor", "cores", "kernel")


def pooled(reports: Iterable[dict[str, Any]]) -> tuple[Ratios, list[str]]:
    """All samples of each ratio, and a line for each part that is left out, as others used the machine meanwhile.

    BenchError where the runs did not measure the same, or did it on different machines.
    """
    samples: Ratios = {}
    left_out: list[str] = []
    before: dict[str, Any] | None = None
    for report in reports:
        measured = {name: report["settings"].get(name) for name in MEASURED}
        measured |= {name: report["machine"][name] for name in MACHINE}
        if before not in (None, measured):
            raise BenchError(f"these runs did not measure the same: {before}, {measured}")
        before = measured
        for part in report["parts"]:
            if max(part["strangers"] or 0.0, part.get("stolen") or 0.0) > LOADED:
                left_out.append(f"left out, as it was measured on a loaded machine: {part['name']} of {report['date']}")
                continue
            for figure in part["figures"]:
                if figure["unit"] == "x":
                    samples.setdefault((figure["workload"], figure["name"]), []).extend(figure["samples"])
    return samples, left_out


def table(ratios: Ratios) -> Table:
    """A row for each ratio, with the interval that the true median is in with 95 %."""
    made = Table()
    for head in ("workload", "figure"):
        made.add_column(head)
    for head in ("median", "95 % from", "to", "rounds"):
        made.add_column(head, justify="right")
    for (workload, name), samples in ratios.items():
        interval = median_interval(samples)
        bounds = [number(bound, "x") for bound in interval] if interval else ["", ""]
        made.add_row(workload, name, number(median(samples), "x"), *bounds, str(len(samples)))
    return made
