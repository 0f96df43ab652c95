"""Pool the results of several runs: `sh bench/run.sh --pool A.json B.json ...`.

Only ratios are pooled: each is of one round, while seconds depend on the machine's speed at the
time. Rounds of one run have more in common than rounds of two runs, so an interval is a little
narrower than it should be. The caller must check that the runs are of the same program: between
their commits only documents and the benchmark may have changed.
"""

from collections.abc import Iterable
from statistics import median
from typing import Any

from rich.table import Table

from bench.figures import median_interval
from bench.report import LOADED, number
from bench.rounds import BenchError

Ratios = dict[tuple[str, str], list[float]]  # samples by workload and figure
MEASURED = ("jobs", "quick", "short", "whole_emacs", "turn_s")  # the settings that a figure depends on
MACHINE = ("processor", "cores", "kernel")


def pooled(reports: Iterable[dict[str, Any]]) -> tuple[Ratios, list[str]]:
    """Return all samples of each ratio, and a line for each part that is left out.

    A part is left out if other programs used more than LOADED of the machine meanwhile. Raise
    BenchError if the runs have different settings or come from different machines.
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
                left_out.append(f"left out, because the machine was loaded: {part['name']} of {report['date']}")
                continue
            for figure in part["figures"]:
                if figure["unit"] == "x":
                    samples.setdefault((figure["workload"], figure["name"]), []).extend(figure["samples"])
    return samples, left_out


def table(ratios: Ratios) -> Table:
    """Return a table with a row for each ratio and the 95 % confidence interval of its median."""
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
