"""Decide which commands run on the master's machine because their remote results were refused.

A result that was refused for a reason which lies in the command (`Reason.is_remembered`) would be
refused again. The command ran on the master's machine, and the next build runs it there at once.
From time to time it is tried on a worker again, because it may have changed.
"""

import os
from typing import NamedTuple

from termite.engine.decide.command_memory import (
    CommandKey,
    CommandMemory,
    RefusedCommand,
    remember,
    text_digest,
)
from termite.engine.errors import Reason
from termite.engine.model import Command

REMEMBERED_S = 7 * 24 * 3600.0  # since the result was refused last
TRIES = 20  # one in so many runs is tried on a worker again


class Refusal(NamedTuple):
    """The reason for which a result was refused, and the place that is to blame, or ""."""

    reason: Reason
    place: str


class RefusalMemory:
    """The commands of a memory whose results were refused. Times are seconds since the epoch."""

    def __init__(self, memory: CommandMemory) -> None:
        self._memory = memory

    @property
    def are_known(self) -> bool:
        """False if no command is known, so that nobody needs to compute keys."""
        return bool(self._memory.refused)

    def find(self, key: CommandKey, now_s: float) -> Refusal | None:
        """Return why the command's result was refused, or None if a worker may run it."""
        known = self._memory.refused.get(key[1])
        if known is None or not 0 <= now_s - known.since_s < REMEMBERED_S or known.runs % TRIES == TRIES - 1:
            return None
        # Another version of termite may have other reasons.
        return Refusal(Reason(known.reason), os.fsdecode(known.place)) if known.reason in set(Reason) else None

    def find_newest(self, command: Command, now_s: float) -> Refusal | None:
        """Return as `find` does, for the environment in which the command ran last.

        Nothing is counted, because the command does not run now.
        """
        of_text = text_digest(command)
        return self.find((of_text, self._memory.newest.get(of_text, 0)), now_s)

    def count_run(self, key: CommandKey) -> None:
        """Count that the command was about to run: here, or on a worker as a try."""
        if known := self._memory.refused.get(key[1]):
            known.runs += 1

    def record(self, key: CommandKey, refusal: Refusal, now_s: float) -> None:
        """Record that a worker ran the command, and that its result was refused."""
        of_text, whole = key
        known = self._memory.refused.get(whole)
        runs = known.runs if known else 0
        refused = RefusedCommand(os.fsencode(refusal.place), now_s, runs, refusal.reason.value)
        remember(self._memory.refused, whole, refused)
        remember(self._memory.newest, of_text, whole)

    def forget(self, key: CommandKey) -> None:
        """Forget a command that a worker ran, and whose result was used."""
        self._memory.refused.pop(key[1], None)
