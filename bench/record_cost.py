"""Measure what records cost: the master's CPU a job, beside a master that makes none.

    PYTHONPATH=.:tools .venv/bin/python -m bench.record_cost [PAIRS [JOBS]]

Two masters with simulated workers of their own take turns, a load of JOBS of Lua's jobs each. The
other master is this program again, with the functions of `unrecorded` in place of the recorder's.
CPU is the time of the process (as in rusage), in whole ticks of 10 ms. Keep the machine idle.
"""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Sequence
from statistics import median

from bench import daemons
from bench.cpu import accounts
from bench.rounds import Settings
from bench.throughput import QUICK_JOBS, RATE_AT_ONCE, Loads, simulated
from termite.cli import master_command
from termite.engine.master.job import Job
from termite.engine.master.recording.recorder import Recorder

UNRECORDED = "--unrecorded"  # the first argument of the other master


def unrecorded() -> None:
    """Let this process note no end, keep no record, and write none."""

    def finish(recorder: Recorder, job: Job) -> None:
        job.notes.home_s = time.time()  # it decides whether a job is cancelled
        job.output.forget()
        recorder._jobs.pop(job.id, None)

    def note_nothing(recorder: Recorder, *args: object) -> None:
        pass

    replaced = {"finish": finish, **dict.fromkeys(("command_ended", "published", "queue", "send"), note_nothing)}
    for name, function in replaced.items():
        setattr(Recorder, name, function)


def measure(what: str, module: str, flag: str, words: Sequence[str]) -> None:
    """Print the difference of each pair of loads, and their median, in microseconds a job.

    `what` names the part that the other master lacks, which is the program `module` of this
    directory with `flag`. `words` are the numbers of pairs and of jobs, if they are given.
    """
    pairs, jobs = map(int, (*words, *("10", "3000")[len(words) :]))
    with accounts() as counted, contextlib.ExitStack() as stack:
        sides = []
        for name, program in (("with", []), ("without", daemons.module(module, flag))):
            settings = Settings(counted, print)
            settings = dataclasses.replace(settings, work=settings.work / f"{what}-{name}")
            side, _ = stack.enter_context(simulated(settings, "lua", RATE_AT_ONCE, program=program))
            sides.append(Loads(side, "lua"))
            sides[-1].run(QUICK_JOBS, RATE_AT_ONCE)
        found = []
        for pair in range(pairs):
            order = sides if pair % 2 else sides[::-1]
            spent_us = {loads: 1000 * loads.rate(jobs, RATE_AT_ONCE).master_ms for loads in order}
            found.append(spent_us[sides[0]] - spent_us[sides[1]])
            print(f"{spent_us[sides[0]]:.0f} us with {what}, {spent_us[sides[1]]:.0f} us without: {found[-1]:+.0f} us")
    print(f"{what}: {median(found):.0f} us of the master's CPU a job (median of {pairs} pairs)")


if __name__ == "__main__":
    if sys.argv[1:2] == [UNRECORDED]:
        unrecorded()
        del sys.argv[1]
        sys.exit(master_command())
    measure("records", "record_cost", UNRECORDED, sys.argv[1:3])
