"""A daemon counts its descriptors, and refuses newcomers when only its reserve is left."""

import os
import resource

import pytest

from termite.engine.host import descriptors
from termite.engine.host.descriptors import (
    MOST_IN_RESERVE,
    Descriptors,
    free_beside_reserve,
    has_half_the_reserve,
    open_files,
)


def let_free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let this process have so many free descriptors, beside and including the reserve."""
    limit = open_files() + count
    monkeypatch.setattr(descriptors, "file_limit", lambda: limit)


def test_open_files_are_counted_whether_or_not_the_kernel_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_files()
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    assert open_files() == before + 20
    monkeypatch.setattr(os, "stat", lambda _: os.stat_result([0] * 10))
    assert before + 20 <= open_files() <= before + 21  # listing the directory opens it
    for fd in fds:
        os.close(fd)


def test_the_limit_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 200), hard))
    try:
        descriptors.raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_newcomers_are_refused_when_the_reserve_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "SHARE_IN_RESERVE", 1)
    let_free(monkeypatch, MOST_IN_RESERVE + 3)
    newcomers, fds = Descriptors(), []
    while newcomers.has_room():
        fds.append(os.open("/dev/null", os.O_RDONLY))
    assert len(fds) == 3 and has_half_the_reserve()
    assert not newcomers.has_room()
    os.close(fds.pop())
    assert newcomers.has_room()
    for fd in fds:
        os.close(fd)


def test_half_of_the_reserve_is_for_those_who_run_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "SHARE_IN_RESERVE", 1)
    let_free(monkeypatch, 5)
    assert free_beside_reserve() == 0 and not has_half_the_reserve()
