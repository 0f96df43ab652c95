"""Measure sides in alternation, for a number of rounds or until a time limit."""

import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.cpu import Accounts
from projects import CHECKOUT, ProjectError, Say
from sources import SourceError

T = TypeVar("T")


class BenchError(Exception):
    """A part cannot be measured; the text is for the user."""


# These errors end one part, but not the run. The last two mean a program that is missing, fails or
# hangs.
FAILURES = (BenchError, ProjectError, SourceError, OSError, subprocess.SubprocessError)


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings are the arguments of every part.

    `limit_s`: a part begins no further round if that would end after so many seconds.
    `quick`: the workloads are small, to show that the programs work; the figures mean little.
    `short`: the value of `--short` for the masters of whole builds.
    `fresh`: trees of earlier runs are made again.
    `notes`: lines that a reader of the results must know.
    `ended`: the user has interrupted the run, so that no further part may begin.
    """

    accounts: Accounts
    say: Say
    rounds: int = 5
    limit_s: float = 2400.0
    jobs: int = 2
    quick: bool = False
    whole_emacs: bool = False
    short: str = "auto"
    work: Path = CHECKOUT / "build" / "bench"
    sources: Path = CHECKOUT / "build" / "sources"
    fresh: bool = False
    notes: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def note(self, line: str) -> None:
        """Print a line, and keep it for the results."""
        self.notes.append(line)
        self.say(line)


def alternate(settings: Settings, sides: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Measure each side once in every round; return the results of each side.

    The order of the sides is reversed and rotated from round to round. If the machine gets slower
    with time, it does so for all sides, and no side always follows the same other one.
    """
    return in_rounds(settings, lambda number: _one_round(settings, sides, number))


def repeated(settings: Settings, name: str, side: Callable[[], T]) -> list[T]:
    """Measure one side alone, once in every round."""
    return alternate(settings, {name: side})[name]


def in_rounds(settings: Settings, one_round: Callable[[int], Mapping[str, T]]) -> dict[str, list[T]]:
    """Run the rounds and return each side's results.

    If a round cannot be finished, no further one begins, and the results of earlier rounds are
    kept. If that happens in the first round, its error is raised.
    """
    results: dict[str, list[T]] = {}
    began = time.monotonic()
    for number in range(settings.rounds):
        started = time.monotonic()
        try:
            for side, result in one_round(number).items():
                results.setdefault(side, []).append(result)
        except FAILURES as error:
            if number == 0:
                raise
            settings.note(f"stopped after {number} rounds: {error}")
            break
        except (KeyboardInterrupt, SystemExit):
            if number == 0:
                raise
            settings.note(f"ended by hand after {number} rounds")
            settings.ended.set()
            break
        now = time.monotonic()
        if number + 1 < settings.rounds and now - began + (now - started) > settings.limit_s:
            settings.note(f"stopped after {number + 1} rounds: the next one would end after {settings.limit_s:.0f} s")
            break
    return results


def _one_round(settings: Settings, sides: Mapping[str, Callable[[], T]], number: int) -> dict[str, T]:
    results: dict[str, T] = {}
    for side in order(list(sides), number):
        settings.say(f"round {number + 1} of {settings.rounds}: {side}")
        results[side] = sides[side]()
    return results


def order(sides: Sequence[str], number: int) -> Sequence[str]:
    """Return the sides in the order of this round."""
    first = number // 2 % len(sides)
    rotated = [*sides[first:], *sides[:first]]
    return rotated if number % 2 == 0 else rotated[::-1]
