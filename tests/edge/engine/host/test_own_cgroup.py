"""A worker finds out how much CPU time its control groups give it."""

import math
import os
from pathlib import Path

import pytest

from termite.engine.host import machine
from termite.engine.host.machine import usable_cores
from termite.engine.host.own_cgroup import least_quota


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"../cpu.max": "50000 100000\n", "cpu.max": "max 100000\n"}, 0.5),
        ({"../../cpu.max": "100000 100000\n"}, math.inf),  # above the mount point
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"cpu.cfs_quota_us": "400000\n", "cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu.cfs_quota_us": "400000\n"}, math.inf),
        ({"cpu.max": "nonsense\n"}, math.inf),
        ({"cpu.max": "100000 0\n"}, math.inf),
        ({}, math.inf),
    ],
)
def test_the_least_quota_of_all_groups_counts(tmp_path: Path, files: dict[str, str], quota: float) -> None:
    group = tmp_path / "mount" / "group"
    group.mkdir(parents=True)
    for name, text in files.items():
        Path(os.path.normpath(group / name)).write_text(text)
    assert least_quota(group, tmp_path / "mount") == quota


@pytest.mark.parametrize(("quota", "cores"), [(math.inf, 8), (100.0, 8), (2.5, 3), (2.0, 2), (0.1, 1)])
def test_a_quota_and_the_affinity_limit_the_cores(monkeypatch: pytest.MonkeyPatch, quota: float, cores: int) -> None:
    monkeypatch.setattr(machine, "read_cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert usable_cores() == cores
