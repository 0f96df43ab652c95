"""Compute the mtime that a result gets on the master's machine.

An output must never be older than an input that was there before, nor newer than a file written
after it. The only "now" is therefore that of the file system. With times from another clock, even
the system clock of this machine, make rebuilt 300 of 300 outputs.
"""

import msgspec

# A file gets the time of the last clock tick, which can be before the job's start. A tick is 10 ms
# at CONFIG_HZ=100.
TICK_NS = 10_000_000
# The range of the integers in a message, from 1677 to 2554. A file on a tmpfs may have any date,
# and archives have wrong ones.
FIRST_NS, LAST_NS = -(2**63), 2**64 - 1


def wire_ns(mtime_ns: int) -> int:
    """Return the time of a file on the disk as a message says it: the nearest that it can say."""
    return min(max(mtime_ns, FIRST_NS), LAST_NS)


class Timing(msgspec.Struct, frozen=True, gc=False):
    """The times of one job.

    `dispatched_ns` is our file system's time before the job was sent. `started_ns` and `ended_ns`
    are times of the worker's clock; `offset_ns` is added to such a time to get ours. `number` is
    the journal number up to which the job saw the tree.
    """

    dispatched_ns: int
    started_ns: int
    ended_ns: int
    offset_ns: int
    number: int

    def is_made_in_job(self, mtime_ns: int) -> bool:
        """Return whether an mtime of the worker's clock was given by the kernel while the job ran.

        Any other time, older or newer, was set by the command.
        """
        return self.started_ns - TICK_NS <= mtime_ns <= self.ended_ns

    def master_ns(self, mtime_ns: int, now_ns: int) -> int:
        """Return the mtime, in ns, that a result with the worker's `mtime_ns` gets here.

        `now_ns` is our file system's time. All files of a job must get the same one, so
        that their order is kept; ties are allowed.
        """
        if not self.is_made_in_job(mtime_ns):
            return mtime_ns
        return min(max(mtime_ns + self.offset_ns, self.dispatched_ns), now_ns)
