"""Test the choice of the blobs that are evicted."""

import random

import pytest

from termite.engine.model import StoreLimits
from termite.engine.store import eviction_plan
from termite.engine.store.eviction_plan import UseHistogram


def evicted(blobs: list[tuple[float, int]], limits: StoreLimits) -> list[bool]:
    histogram = UseHistogram()
    for blob in blobs:
        histogram.add(*blob)
    plan = histogram.plan(limits)
    return [plan is not None and plan.takes(*blob) for blob in blobs]


@pytest.mark.parametrize("count", [0, 1, 10])
def test_a_store_that_fits_exactly_keeps_all(count: int) -> None:
    assert (
        evicted([(float(number), 100) for number in range(count)], StoreLimits(count * 100, count)) == [False] * count
    )


def test_nothing_stays_if_nothing_may() -> None:
    assert evicted([(1.0, 100), (1.0, 0), (2.0, 5)], StoreLimits(0, 0)) == [True] * 3


@pytest.mark.parametrize("buckets", [1, 4, 20_000])
def test_the_oldest_go_and_no_more_than_one_bucket_too_many(buckets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction_plan, "MAX_BUCKETS", buckets)
    for seed in range(200):
        rng = random.Random(seed)
        blobs = [(rng.uniform(1e9, 1e9 + 300), rng.choice([0, 1, 50, 5000])) for _ in range(rng.randrange(1, 60))]
        limits = StoreLimits(rng.randrange(100_000), rng.randrange(80))
        gone = evicted(blobs, limits)
        kept = [blob for blob, goes in zip(blobs, gone, strict=True) if not goes]
        assert len(kept) <= limits.max_files, seed
        assert sum(size for _, size in kept) <= limits.max_bytes, seed
        if buckets == 20_000:  # each bucket is a second
            removed = [blob for blob, goes in zip(blobs, gone, strict=True) if goes]
            assert int(max(removed, default=(0.0, 0))[0]) <= int(min(kept, default=(2e9, 0))[0]), seed


def test_the_histogram_of_many_seconds_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction_plan, "MAX_BUCKETS", 100)
    histogram = UseHistogram()
    for second in range(10_000):
        histogram.add(float(second), 1)
    assert len(histogram._files) <= 100
    plan = histogram.plan(StoreLimits(10**9, 5000))
    assert plan is not None
    assert sum(plan.takes(float(second), 1) for second in range(10_000)) == 5500
