"""Measure what "a command happens once" costs: the master's CPU a job, beside a master without it.

    PYTHONPATH=.:tools .venv/bin/python -m bench.once_cost [PAIRS [JOBS]]

Two masters with simulated workers of their own take turns, a load of JOBS of Lua's jobs each. The
other master is this program again, with the functions of `careless` in place of the product's. The
careless one writes no plan, holds no output, and compares no result with the disk. CPU is the time
of the process (as in rusage), in whole ticks of 10 ms. Keep the machine idle.
"""

import sys
from collections.abc import Iterator, Sequence

from bench.record_cost import measure
from termite.cli import master_command
from termite.engine.launch import output
from termite.engine.model import Change
from termite.engine.tree.publishing.kept_plans.plan_file import PlanFile
from termite.engine.tree.publishing.preparation import Contents
from termite.engine.tree.publishing.reconciliation import Reconciled, Reconciliation

CARELESS = "--careless"  # the first argument of the other master


def careless() -> None:
    """Let this process write no plan, hold no output and reconcile nothing."""

    async def run(reconciliation: Reconciliation, changes: Sequence[Change], contents: Contents) -> Reconciled:
        return Reconciled(changes, contents)

    def look_at_files(reconciliation: Reconciliation) -> Iterator[None]:
        return iter(())

    def nothing(*args: object, **named: object) -> None:
        pass

    replaced: dict[type, dict[str, object]] = {
        Reconciliation: {"run": run, "look_at_files": look_at_files, "check": nothing},
        PlanFile: {"begin": nothing, "end": nothing},
    }
    for owner, functions in replaced.items():
        for name, function in functions.items():
            setattr(owner, name, function)
    output.hold_s = lambda request: 0.0


if __name__ == "__main__":
    if sys.argv[1:2] == [CARELESS]:
        careless()
        del sys.argv[1]
        sys.exit(master_command())
    measure("once", "once_cost", CARELESS, sys.argv[1:3])
