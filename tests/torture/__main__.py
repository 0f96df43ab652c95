"""Run rounds of the torture test, attacks, sweeps and the soak; or sweep over all calls.

    python -m tests.torture [--seed N] [--fault NAME] [--until MINUTES] [--rounds N] [--jobs N] [--list]
    python -m tests.torture --sweeps [GROUP] [--list]

NAME is the name of a fault, or the beginning of names with `*` at its end. A line a round says
`ok|FAIL fault seed seconds jobs`. After a FAIL the problems follow, the kept directory, and the
command that replays the round. The exit code is 1 if anything failed.

After the rounds, random calls of all groups of the sweeps meet random faults.

GROUP is the beginning of the names of groups, or the name of one point (tests/torture/sweeps.py).
Each call of a group meets each fault. A line a group says `ok|FAIL group points seconds`.
"""

import argparse
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.e2e.places import IS_ROOT
from tests.torture.faults import FAULTS
from tests.torture.hostile import HOSTILE, WORDS, attack
from tests.torture.one_round import Result, Rounds
from tests.torture.scene import Fault
from tests.torture.soak import JOBS, SOAK, soak
from tests.torture.sweeps import GroupResult, Plan, count_points, matching, run_groups, run_some, sweep_summary

SOAK_SHARE = 0.2  # of the time
HOSTILE_SHARE = 0.1
SWEEP_SHARE = 0.2
SWEEPS = "sweeps"


def main() -> int:
    """Run what the command line asks for, and return the exit code."""
    words = _parser().parse_args()
    # A shell without job control lets what it starts in the background ignore Ctrl-C, and so would
    # the builds.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that everything is cleaned up
    os.umask(0o022)
    if words.sweeps is not None:
        return sweep(words.sweeps, only_list=words.list)
    if words.list:
        print("\n".join(f"{fault.name:28} {fault.words}" for fault in FAULTS.values()))
        print("\n".join(f"{name:28} {words}" for name, words in WORDS.items()))
        print(f"{SWEEPS:28} random calls of all daemons fail, or are their last ones")
        print(f"{SOAK:28} thousands of jobs with new names; the tables must not grow")
        return 0
    names = _names(words.fault)
    if not names:
        print(f"torture: no fault is called {words.fault}, or it needs root; --list shows them", file=sys.stderr)
        return 2
    return _run(_new_base(), names, words)


def _new_base() -> Path:
    """Make a directory where a home is, because jobs do not see the machine's /tmp and /var/tmp."""
    base = Path(tempfile.mkdtemp(prefix="termite-torture-", dir="/home" if IS_ROOT else Path.home()))
    base.chmod(0o755)
    return base


def sweep(pattern: str, *, only_list: bool) -> int:
    """Run the groups that `pattern` names, or the one point, and return the exit code."""
    name, _, point = pattern.partition("#")
    groups = matching(name)
    if not groups:
        print(f"torture: no group of calls begins with {name}; --sweeps --list shows them", file=sys.stderr)
        return 2
    if only_list:
        print("\n".join(f"{group.name:40} {' '.join(group.faults)}" for group in groups))
        return 0
    number, _, what = point.partition(":")
    plan = Plan(only=(int(number), what) if point else None)
    base = _new_base()
    results: list[GroupResult] = []
    try:
        for result in run_groups(base, [(group, plan) for group in groups]):
            results.append(result)
            print(result.line(), flush=True)
    except KeyboardInterrupt:
        print("torture: interrupted", file=sys.stderr)
    finally:
        shutil.rmtree(base / "now", ignore_errors=True)
        if any(base.iterdir()):
            print(f"    kept: {base}")
        else:
            base.rmdir()
    print(sweep_summary(results))
    return 1 if any(result.problems for result in results) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="torture", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first round; 0: a random one")
    parser.add_argument("--fault", default="", help="a fault of --list; default: all in random order, then the soak")
    parser.add_argument("--until", type=float, default=30.0, help="minutes after which no round begins")
    parser.add_argument("--rounds", type=int, default=0, help="number of rounds; 0: as many as there is time for")
    parser.add_argument("--jobs", type=int, default=JOBS, help="number of jobs of the soak")
    parser.add_argument("--list", action="store_true", help="list the faults, or with --sweeps the groups")
    parser.add_argument("--sweeps", nargs="?", const="", metavar="GROUP", help="sweep over the calls of these groups")
    return parser


def _names(pattern: str) -> list[str]:
    known = [name for name, fault in FAULTS.items() if IS_ROOT or not fault.needs_root]
    if not pattern:
        return [*known, HOSTILE, SWEEPS, SOAK]
    return [
        name
        for name in (*known, *WORDS, SWEEPS, SOAK)
        if name == pattern or (pattern[-1] == "*" and name.startswith(pattern[:-1]))
    ]


def _run(base: Path, names: list[str], words: argparse.Namespace) -> int:
    """Run the rounds and the soak, and print the summary.

    A round that Ctrl-C has cut is not counted.
    """
    results: list[Result] = []
    swept: list[GroupResult] = []
    try:
        for result in _results(base, names, words):
            if isinstance(result, GroupResult):
                swept.append(result)
                print(result.line(), flush=True)
            else:
                results.append(result)
                _report(result)
    except KeyboardInterrupt:
        print("torture: interrupted", file=sys.stderr)
    finally:
        shutil.rmtree(base / "now", ignore_errors=True)
        if not any(base.iterdir()):
            base.rmdir()
    print(summary(results, swept))
    has_failed = any(result.problems for result in results) or any(result.problems for result in swept)
    return int(has_failed)


def _results(base: Path, names: list[str], words: argparse.Namespace) -> Iterator[Result | GroupResult]:
    seed = words.seed or random.SystemRandom().randrange(1, 1_000_000)
    end = time.monotonic() + 60 * words.until
    faults = [FAULTS[name] for name in names if name in FAULTS]
    others = [name for name in names if name in WORDS]
    sweeps_end = end - _share(words, SOAK_SHARE, SOAK in names, faults or others or SWEEPS in names)
    attacks_end = sweeps_end - _share(words, SWEEP_SHARE, SWEEPS in names, faults or others)
    rounds_end = attacks_end - _share(words, HOSTILE_SHARE, others, faults)
    rounds = Rounds(base)
    for number, (fault, chosen) in enumerate(_endless(faults, seed)):
        if time.monotonic() > rounds_end or number == (words.rounds or -1):
            break
        yield rounds.run(fault, chosen)
    for number in itertools.count() if others else ():
        if time.monotonic() > attacks_end or number == (words.rounds or -1):
            break
        yield attack(base, others[number % len(others)], seed + number)
    if SWEEPS in names:
        yield from itertools.islice(run_some(base, seed, sweeps_end), words.rounds or None)
    if SOAK in names:
        yield soak(base, seed, end, words.jobs)


def _share(words: argparse.Namespace, share: float, is_wanted: object, has_others: object) -> float:
    """Return the seconds that are kept for something wanted, if it shares the time with others."""
    return 60 * words.until * share if is_wanted and has_others else 0.0


def _endless(faults: list[Fault], seed: int) -> Iterator[tuple[Fault, int]]:
    """Yield every fault once in a random order, then again in another one with the next seed."""
    while faults:
        shuffled = random.Random(seed).sample(faults, len(faults))
        yield from ((fault, seed) for fault in shuffled)
        seed += 1


def _report(result: Result) -> None:
    verdict = "FAIL" if result.problems else "ok"
    print(f"{verdict} {result.fault} {result.seed} {result.seconds:.1f} {result.jobs}", flush=True)
    for problem in result.problems:
        print(f"    {problem}")
    if result.problems:
        print(f"    injected: {'; '.join(result.injected) or 'nothing'}")
        print(f"    kept: {result.kept}")
        print(f"    again: make torture SEED={result.seed} FAULT={result.fault} ROUNDS=1", flush=True)


def summary(results: list[Result], swept: Sequence[GroupResult] = ()) -> str:
    """Return the last line of a run. A round can be wrong, hang and leave something at once."""

    def count(word: str) -> int:
        return sum(any(problem.startswith(word) for problem in result.problems) for result in results)

    points, builds, wrong, hangs, left = count_points(swept)
    points += sum(bool(result.injected) for result in results)
    builds += sum(result.builds for result in results)
    wrong, hangs, left = wrong + count("wrong:"), hangs + count("hang:"), left + count("left:")
    return f"{points} faults in {builds} builds: {wrong} wrong, {hangs} hangs, {left} left"


if __name__ == "__main__":
    raise SystemExit(main())
