"""A job that may have met its limit of processes is given back, whatever its exit code."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from termite.engine.errors import Reason, Retryable
from termite.engine.model import Exit, JobLimits, Usage
from termite.fuse.sandbox.job_limits import JobLimitWatches, LimitWatch
from termite.fuse.sandbox.sandbox_report import SandboxResult
from termite.fuse.sandbox.spawner import WaitingSandbox


@pytest.fixture
def watches(tmp_path: Path) -> Iterator[JobLimitWatches]:
    watches = JobLimitWatches(JobLimits(processes=100), tmp_path)
    yield watches
    watches.close()


def begin(watches: JobLimitWatches) -> LimitWatch:
    return watches.begin(1, cast(WaitingSandbox, SimpleNamespace(pid=1)), lambda: None, 0.0)


def ended(made: int, code: int) -> SandboxResult:
    return SandboxResult(Exit(code), 0, Usage(0.0, 0.0, 0.0, 0), 0, 0, False, Path(), processes_made=made)


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize(("newest", "is_hit"), [(1099, False), (1100, True)])
def test_processes_made_between_two_looks_may_have_been_there_at_once(
    watches: JobLimitWatches, monkeypatch: pytest.MonkeyPatch, code: int, newest: int, is_hit: bool
) -> None:
    watches._newest = 1000
    monkeypatch.setattr(watches, "_read_newest", lambda: newest)
    watch = begin(watches)
    watches.raise_if_hit(watch, ended(0, code))
    if is_hit:
        with pytest.raises(Retryable) as caught:
            watches.raise_if_hit(watch, ended(150, code))
        assert caught.value.reason is Reason.PROCESSES_FULL
    else:
        watches.raise_if_hit(watch, ended(150, code))


def test_a_job_that_made_its_processes_one_after_the_other_counts(
    watches: JobLimitWatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks have seen three at once, and less than a hundred were made between two of them."""
    monkeypatch.setattr(watches, "_read_newest", lambda: watches._newest + 90)
    watch = begin(watches)
    for _ in range(5):
        watches._count_made()
        watch.note(3, watches._made)
    watches.raise_if_hit(watch, ended(460, 0))
