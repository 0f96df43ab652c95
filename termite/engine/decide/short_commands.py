"""Decide which commands are too short to be worth a worker.

A command's name decides nothing: it runs on a worker once, and the time that it took there counts.
The dispatch overhead is measured too: 3 ms for a worker on the master's machine, 25 ms for one
behind a home link.
"""

from collections import deque
from statistics import median

from termite.engine.decide.command_memory import CommandKey, CommandMemory, remember, text_digest
from termite.engine.model import Command

# A command is short if its run time is below this many times the dispatch overhead: dispatching it
# would cost 2 % or more. On one machine the real cost is three times that, because the job also
# pays for its sandbox and for cold processor caches.
SHORT_RATIO = 50
MAX_SHORT_S = 1.0  # a longer command is never short, however large the overhead, unless the user sets a limit
MAX_SAMPLES = 31  # overheads, of which the median counts: a job that had to fetch a compiler is an outlier
MIN_SAMPLES = 5  # overheads, before any command is called short


class ShortCommands:
    """The run times of commands, and which commands are short because of them."""

    def __init__(self, limit_s: float | None = None, memory: CommandMemory | None = None) -> None:
        """Use the run times in `memory`, which long commands never enter.

        `limit_s` is the run time below which a command is short. If it is None, the limit follows
        from the measured overhead; if it is 0, no command is short. If `memory` is None, a new one
        is used.
        """
        self._limit_s = limit_s
        self._memory = memory or CommandMemory()
        self._overheads_s: deque[float] = deque(maxlen=MAX_SAMPLES)

    @property
    def is_on(self) -> bool:
        """False if no command is ever short, so that nobody needs to compute keys."""
        return self._limit_s != 0

    @property
    def limit_s(self) -> float:
        """The run time below which a command is short; 0.0 until enough is measured."""
        if self._limit_s is not None:
            return self._limit_s
        if len(self._overheads_s) < MIN_SAMPLES:
            return 0.0
        return min(SHORT_RATIO * median(self._overheads_s), MAX_SHORT_S)

    def took_s(self, command: Command) -> float | None:
        """Return the command's run time, in seconds, in the environment in which it ran last.

        Return None if the command is unknown or longer than any short command can be.
        """
        return self._memory.took_s.get(self._memory.newest.get(text_digest(command), 0))

    def is_short(self, key: CommandKey) -> bool:
        """Return True if the command was short when it last ran in the same environment."""
        took_s = self.time_of(key)
        return took_s is not None and took_s < self.limit_s

    def time_of(self, key: CommandKey) -> float | None:
        """Return the command's run time in the same environment, in seconds, or None.

        Commands that are longer than any short command can be have none.
        """
        return self._memory.took_s.get(key[1])

    def record_remote(self, key: CommandKey, took_s: float, overhead_s: float) -> None:
        """Record that a worker ran the command, and what dispatching it cost in addition.

        Only call this if the command would have had the same effects on the master's machine.
        """
        self._overheads_s.append(overhead_s)
        self._record(key, took_s)

    def record_local(self, key: CommandKey, took_s: float) -> None:
        """Record that the command ran on the master's machine because it was short."""
        self._record(key, took_s)

    def forget(self, key: CommandKey) -> None:
        """Forget a command whose effects might have been different on the master's machine."""
        self._memory.took_s.pop(key[1], None)

    def _record(self, key: CommandKey, took_s: float) -> None:
        of_text, whole = key
        if took_s > max(MAX_SHORT_S, self._limit_s or 0.0):
            self._memory.took_s.pop(whole, None)
            return
        # The mean of the old and the new time, so that one disturbed run does not count for long.
        remember(self._memory.took_s, whole, (self._memory.took_s.get(whole, took_s) + took_s) / 2)
        remember(self._memory.newest, of_text, whole)
