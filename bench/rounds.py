"""Sides that are measured in alternation, for so many rounds or so long."""

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
    """A part cannot be measured; the text is for a person."""


# What a part can fail of without ending the run: also a program that is missing, ends with an error or does not end.
FAILURES = (BenchError, ProjectError, SourceError, OSError, subprocess.SubprocessError)


@dataclass(frozen=True, slots=True)
class Settings:
    """What parts are told. `limit_s`: a part begins no further round after so long. `quick`: small workloads, to see
    that the program works: the figures mean little. `fresh`: trees of earlier runs are not used again."""

    accounts: Accounts
    say: Say
    rounds: int = 5
    limit_s: float = 2400.0
    jobs: int = 2
    quick: bool = False
    whole_emacs: bool = False
    short: str = "auto"  # of a master that builds: which commands are too short for their way
    work: Path = CHECKOUT / "build" / "bench"
    sources: Path = CHECKOUT / "build" / "sources"
    fresh: bool = False
    notes: list[str] = field(default_factory=list)  # what a reader of the results must know
    ended: threading.Event = field(default_factory=threading.Event)  # somebody lost patience: no further part

    def note(self, line: str) -> None:
        self.notes.append(line)
        self.say(line)


def alternate(settings: Settings, sides: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Each side once in every round, in an order that is turned round and rotated: what gets slower with time gets
    slower for all, and nobody always comes after the same one."""
    return in_rounds(settings, lambda number: _one_round(settings, sides, number))


def repeated(settings: Settings, name: str, side: Callable[[], T]) -> list[T]:
    """One side alone, in every round."""
    return alternate(settings, {name: side})[name]


def in_rounds(settings: Settings, one_round: Callable[[int], Mapping[str, T]]) -> dict[str, list[T]]:
    """What each side had in each round. A round that cannot be finished ends them; those before it are kept."""
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
    """In which they come in this round."""
    first = number // 2 % len(sides)
    rotated = [*sides[first:], *sides[:first]]
    return rotated if number % 2 == 0 else rotated[::-1]
