"""The shares of all jobs and of all stores fit into the machine."""

from pathlib import Path

import pytest

from termite.engine.model import JobLimits, JobNetwork, MachineFacts, StoreLimits
from termite.engine.wire.identity import Identity
from termite.engine.worker.job_shares import (
    LEAST_PROCESSES,
    LEAST_STORE_BYTES,
    LEAST_STORE_FILES,
    MOST_PROCESSES,
    job_limits,
    store_limits,
)
from termite.engine.worker.mirror_homes import MAX_MIRRORS, MirrorHome
from termite.engine.worker.mirror_process import MirrorSettings, _start_values

GIB = 1 << 30


@pytest.mark.parametrize(
    ("slots", "tasks", "processes"),
    [(4, 32768, 4096), (1, 4_000_000, MOST_PROCESSES), (32, 125_000, 1953), (128, 65536, LEAST_PROCESSES)],
)
def test_all_jobs_together_have_half_of_the_machines_processes(slots: int, tasks: int, processes: int) -> None:
    assert job_limits(slots, tasks, GIB).processes == processes


def test_a_job_has_all_the_memory_but_the_reserve_and_a_share_if_that_is_short() -> None:
    limits = job_limits(4, 32768, 20 * GIB)
    assert limits.reserve_bytes == GIB
    assert limits.memory_bytes == 19 * GIB
    assert limits.fair_bytes * 4 == 19 * GIB


def test_the_administrator_decides() -> None:
    limits = job_limits(4, 32768, 20 * GIB, 7, 8)
    assert (limits.processes, limits.memory_bytes) == (7, 8)


def test_a_machine_whose_memory_is_not_known_has_no_limit_of_memory() -> None:
    limits = job_limits(4, 32768, 0)
    assert (limits.memory_bytes, limits.reserve_bytes) == (0, 0)


def test_the_stores_of_all_users_fit_into_the_size_but_for_the_least_sizes() -> None:
    whole = StoreLimits(20 * GIB, 1_000_000)
    each = [store_limits(whole, number) for number in range(MAX_MIRRORS)]
    assert each[0] == StoreLimits(10 * GIB, 500_000)
    assert sum(store.max_bytes for store in each if store.max_bytes > LEAST_STORE_BYTES) <= whole.max_bytes
    assert sum(store.max_files for store in each if store.max_files > LEAST_STORE_FILES) <= whole.max_files
    assert min(store.max_bytes for store in each) == LEAST_STORE_BYTES


def test_a_store_that_is_small_by_will_stays_small() -> None:
    assert store_limits(StoreLimits(1000, 10), 5) == StoreLimits(1000, 10)


def test_a_mirror_is_told_the_limits_of_its_users_store() -> None:
    limits = StoreLimits(100 * GIB, 10**6)
    settings = MirrorSettings("w", True, Path("s"), MachineFacts(), "info", limits, JobNetwork(), JobLimits())
    identity, place = Identity("certificate", "key", "authority"), Path("p")
    homes = [MirrorHome(None, place, place), MirrorHome(60800, place, place, 0), MirrorHome(60801, place, place, 1)]
    told = [_start_values(settings, identity, home, 3, 4).store for home in homes]
    assert told == [limits, store_limits(limits, 0), store_limits(limits, 1)]
