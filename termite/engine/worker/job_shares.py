"""Decide what jobs may take of a worker's machine, if its administrator has not said so.

The shares of all jobs, and of all stores, together fit into the machine.
"""

from termite.engine.model import JobLimits, StoreLimits

MOST_PROCESSES = 4096  # of a job, with threads: more than any command of a build has
LEAST_PROCESSES = 512  # a linker or a virtual machine starts a few threads for each core
PROCESSES_SHARE = 0.5  # of those that the machine can have, for all jobs together
RESERVE_SHARE = 0.05  # of the memory: if less is available, a job with more than its share is ended
SCRATCH_SHARE = 0.5  # of the available memory: the page cache and the jobs themselves need the other half
LEAST_STORE_BYTES = 64 * 1024**2  # a smaller store would only ever evict
LEAST_STORE_FILES = 10_000


def job_limits(slots: int, tasks: int, memory_bytes: int, processes: int = 0, job_memory_bytes: int = 0) -> JobLimits:
    """Return the limits of each job of a worker with so many slots.

    The machine can have `tasks` processes and threads, and has `memory_bytes` of memory. The last
    two arguments are the administrator's; 0 means that he has not said.
    """
    share = min(max(int(tasks * PROCESSES_SHARE) // slots, LEAST_PROCESSES), MOST_PROCESSES)
    reserve_bytes = int(memory_bytes * RESERVE_SHARE)
    return JobLimits(
        processes=processes or share,
        memory_bytes=job_memory_bytes or memory_bytes - reserve_bytes,
        fair_bytes=(memory_bytes - reserve_bytes) // slots,
        reserve_bytes=reserve_bytes,
    )


def store_limits(all_stores: StoreLimits, number: int) -> StoreLimits:
    """Return the limits of the store of the user with this number, counted from 0.

    The first user is there most of the time, and gets a half. The next one gets a sixth, then a
    twelfth, and so on. The sum is never more than the whole, but for the least sizes.
    """
    part = (number + 1) * (number + 2)
    return StoreLimits(
        max(all_stores.max_bytes // part, min(LEAST_STORE_BYTES, all_stores.max_bytes)),
        max(all_stores.max_files // part, min(LEAST_STORE_FILES, all_stores.max_files)),
    )
