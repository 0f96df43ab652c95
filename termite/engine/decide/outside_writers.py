"""Decide which commands run on the master's machine because they write outside the tree.

Nothing that a job writes there comes home, so the command ran here as well. The next build runs it
here at once. From time to time it is tried on a worker again, because it may have changed.
"""

import os

from termite.engine.decide.command_memory import (
    CommandKey,
    CommandMemory,
    OutsideWriter,
    remember,
    text_digest,
)
from termite.engine.model import Command

REMEMBERED_S = 7 * 24 * 3600.0  # since the command was last seen to write outside the tree
TRIES = 20  # one in so many runs is tried on a worker again


class OutsideWriters:
    """The commands of a memory that write outside the tree. Times are seconds since the epoch."""

    def __init__(self, memory: CommandMemory) -> None:
        self._memory = memory

    @property
    def are_known(self) -> bool:
        """False if no command is known, so that nobody needs to compute keys."""
        return bool(self._memory.outside)

    def place_of(self, key: CommandKey, now_s: float) -> str:
        """Return the place that the command writes, or "" if a worker may run it."""
        writer = self._memory.outside.get(key[1])
        if writer is None or not 0 <= now_s - writer.since_s < REMEMBERED_S or writer.runs % TRIES == TRIES - 1:
            return ""
        return os.fsdecode(writer.place)

    def newest_place_of(self, command: Command, now_s: float) -> str:
        """Return the place that the command wrote, in the environment in which it ran last, or "".

        Nothing is counted, because the command does not run now.
        """
        of_text = text_digest(command)
        return self.place_of((of_text, self._memory.newest.get(of_text, 0)), now_s)

    def count_run(self, key: CommandKey) -> None:
        """Count that the command was about to run: here, or on a worker as a try."""
        if writer := self._memory.outside.get(key[1]):
            writer.runs += 1

    def record(self, key: CommandKey, place: str, now_s: float) -> None:
        """Record that a worker ran the command, and that it wrote outside the tree at `place`."""
        of_text, whole = key
        known = self._memory.outside.get(whole)
        remember(self._memory.outside, whole, OutsideWriter(os.fsencode(place), now_s, known.runs if known else 0))
        remember(self._memory.newest, of_text, whole)

    def forget(self, key: CommandKey) -> None:
        """Forget a command that a worker ran, and that wrote nothing outside the tree."""
        self._memory.outside.pop(key[1], None)
