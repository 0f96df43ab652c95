"""Build packages again and again with stored results, and execute every hit as well.

    python -m tests.cache_proof [--seed N] [--only NAME,...] [--until MINUTES] [--rounds N] [--list]
    python -m tests.cache_proof --rates [--missed] [--short MS] [--only NAME,...]
    python -m tests.cache_proof --latency HITS

A line a round says `ok|FAIL project round hits/jobs seconds mutations`.
After a FAIL the problems follow, with the kept directory and the command that replays the rounds.
The last line counts hits, builds and wrong rounds. The exit code is 1 if a round was wrong.

With --rates, clean builds of each package show the share of hits and the reasons of misses.
With --latency, hits of one command are measured at its launcher.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.cache_proof.latency import measure
from tests.cache_proof.projects import LARGE, PROJECTS
from tests.cache_proof.rates import show_rates
from tests.cache_proof.rounds import ProvenProject, Result, caching
from tests.cache_proof.twin import remove_tree
from tests.cache_proof.unsteady import NAME as UNSTEADY
from tests.cache_proof.unsteady import Unsteady
from tests.e2e.places import IS_ROOT

UNTIL_MIN = 30.0


def main() -> int:
    """Run what the command line asks for, and return the exit code."""
    words = _parser().parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that everything is cleaned up
    os.umask(0o022)
    usual = [name for name in PROJECTS if name not in LARGE]
    names = words.only.split(",") if words.only else [*usual, UNSTEADY]
    if words.list:
        print("\n".join([*PROJECTS, UNSTEADY]))
        return 0
    if unknown := [name for name in names if name not in PROJECTS and name != UNSTEADY]:
        print(f"cache_proof: no project is called {unknown[0]}; --list shows them", file=sys.stderr)
        return 2
    base = Path(tempfile.mkdtemp(prefix="termite-proof-", dir="/home" if IS_ROOT else Path.home()))
    base.chmod(0o755)
    try:
        if words.latency:
            return measure(base, words.latency)
        if words.rates:
            projects = [PROJECTS[name] for name in names if name in PROJECTS]
            return show_rates(base, projects, with_commands=words.missed, short=words.short)
        return _prove(base, names, words)
    finally:
        remove_tree(base / "place")
        if not any(base.iterdir()):
            base.rmdir()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("cache_proof", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of all rounds; 0: a random one")
    parser.add_argument(
        "--only", default="", metavar="NAME,...", help="projects; default: all but the large ones in turns"
    )
    parser.add_argument("--until", type=float, default=UNTIL_MIN, help="minutes after which no round begins")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of each project; 0: as many as there is time for")
    parser.add_argument("--list", action="store_true", help="list the projects")
    parser.add_argument("--rates", action="store_true", help="show the share of hits in clean builds")
    parser.add_argument("--missed", action="store_true", help="with --rates: show the commands that missed")
    parser.add_argument("--short", default="0", metavar="MS", help="with --rates: the -short of the master")
    parser.add_argument("--latency", type=int, default=0, metavar="HITS", help="measure so many hits")
    return parser


def _prove(base: Path, names: list[str], words: argparse.Namespace) -> int:
    seed = words.seed or random.SystemRandom().randrange(1, 1_000_000)
    print(f"seed {seed}", flush=True)
    results: list[Result] = []
    try:
        for result in _results(base, names, seed, words):
            results.append(result)
            _report(result, seed)
    except KeyboardInterrupt:
        print("cache_proof: interrupted", file=sys.stderr)
    wrong = sum(bool(result.problems) for result in results)
    print(f"{sum(result.hits for result in results)} hits in {len(results)} builds: {wrong} wrong")
    return 1 if wrong else 0


def _results(base: Path, names: list[str], seed: int, words: argparse.Namespace) -> Iterator[Result]:
    end = time.monotonic() + 60 * words.until
    with caching(base, f"cache-proof-{seed}-{os.getpid()}") as tree:
        proven: dict[str, ProvenProject | Unsteady] = {}
        number = 0
        while number != (words.rounds or -1):
            number += 1
            for name in names:
                if time.monotonic() > end:
                    return
                if name not in proven:
                    made = ProvenProject(tree, PROJECTS[name], seed, base) if name in PROJECTS else Unsteady(tree)
                    proven[name] = made
                yield proven[name].run()


def _report(result: Result, seed: int) -> None:
    print(result.line(), flush=True)
    for problem in result.problems[:20]:
        print(f"    {problem}")
    if result.problems:
        print(f"    kept: {result.kept}")
        again = f"--seed {seed} --only {result.name} --rounds {result.number}"
        print(f"    again: python -m tests.cache_proof {again}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
