"""Which time a result gets at home.

The only "now" is the file system's own. Stamps from another clock, even this machine's, made make rebuild 300 of 300
outputs: an output must never be older than an input that was there before, nor newer than a file written after it.
"""

from dataclasses import dataclass

# A file carries the time of the last clock tick, which can be before the job's start: 10 ms at CONFIG_HZ=100.
TICK_NS = 10_000_000


@dataclass(frozen=True, slots=True)
class Timing:
    """When a job ran.

    `dispatched_ns` is our file system's now before it was sent; `started_ns` and `ended_ns` are the worker's clock, and
    `offset_ns` is added to the worker's times to get ours. `number` is the journal number that it ran at.
    """

    dispatched_ns: int
    started_ns: int
    ended_ns: int
    offset_ns: int
    number: int

    def is_made_in_job(self, mtime_ns: int) -> bool:
        """Any other time, older or newer, was set by the command."""
        return self.started_ns - TICK_NS <= mtime_ns <= self.ended_ns

    def home_ns(self, mtime_ns: int, now_ns: int) -> int:
        """`now_ns` is our file system's, and one for all files of a job: so their order stays (ties are fine)."""
        if not self.is_made_in_job(mtime_ns):
            return mtime_ns
        return min(max(mtime_ns + self.offset_ns, self.dispatched_ns), now_ns)
