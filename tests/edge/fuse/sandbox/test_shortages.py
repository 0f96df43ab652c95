"""A shortage of memory or processes is found, and only jobs that it may have hit are given back."""

from pathlib import Path

import pytest

from termite.engine.errors import Reason, Retryable
from termite.engine.host.own_cgroup import find_group, parse_group
from termite.fuse.sandbox import shortages
from termite.fuse.sandbox.shortages import CountWatch, Shortages

V1 = """30 25 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
31 25 0:27 / /sys/fs/cgroup/memory rw,relatime shared:10 - cgroup cgroup rw,memory
32 25 0:28 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
33 25 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V2 = "33 25 0:29 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
IN_CONTAINER = "33 25 0:29 /docker/abc /sys/fs/cgroup/memory ro,relatime master:9 - cgroup cgroup rw,memory\n"


@pytest.mark.parametrize(
    ("groups", "mounts", "group"),
    [
        ("4:memory:/a/b\n0::/\n", V1, ("/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/memory")),
        ("4:cpu,memory:/\n", V1, ("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory")),
        ("0::/user.slice/x.scope\n", V2, ("/sys/fs/cgroup/user.slice/x.scope", "/sys/fs/cgroup")),
        ("0::/\n", V2, ("/sys/fs/cgroup", "/sys/fs/cgroup")),
        ("4:memory:/docker/abc\n", IN_CONTAINER, ("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory")),
        ("4:memory:/docker/abc/d\n", IN_CONTAINER, ("/sys/fs/cgroup/memory/d", "/sys/fs/cgroup/memory")),
        ("4:memory:/elsewhere\n", IN_CONTAINER, None),
        ("4:memory:/docker/abcd\n", IN_CONTAINER, None),
        ("4:cpu:/a\n", V1, None),
        ("4:memory:/a\n", "", None),
        ("", V2, None),
    ],
)
def test_our_group_is_found(groups: str, mounts: str, group: tuple[str, str] | None) -> None:
    found = parse_group(groups.encode(), mounts.encode(), "memory")
    assert found == (group and tuple(map(Path, group)))


@pytest.mark.attack
@pytest.mark.parametrize("name", [b"a\x0bb", "a\u2028b".encode(), b"a\rb", b"\xff"])
def test_the_mount_of_another_user_hides_no_group(name: bytes) -> None:
    """Any user may mount at a directory of his own, and choose its name."""
    theirs = b"40 25 0:50 / /home/eve/%s rw,nosuid - fuse.x x rw,user_id=1001\n" % name
    found = parse_group(b"0::/a\n", theirs + V2.encode(), "memory")
    assert found == (Path("/sys/fs/cgroup/a"), Path("/sys/fs/cgroup"))


def test_the_groups_of_this_machine_are_found_or_not_there() -> None:
    for controller in ("memory", "pids"):
        found = find_group(controller)
        assert found is None or found[0].is_dir()


@pytest.mark.parametrize("before", ["", "low 0\noom 3\n", "oom_kill_disable 7\n"])
def test_a_count_that_rises_is_noticed_by_the_next_look(tmp_path: Path, before: str) -> None:
    file = tmp_path / "memory.events"
    file.write_text(f"{before}oom_kill 4\nother 1\n")
    watch = CountWatch([file, tmp_path / "missing"], b"oom_kill")
    watch.check(1.0)
    assert not watch.has_risen_since(0.0)
    file.write_text(f"{before}oom_kill 5\nother 1\n")
    watch.check(2.0)
    watch.check(3.0)
    assert watch.has_risen_since(2.0)
    assert not watch.has_risen_since(2.5), "it rose before the job began"
    watch.close()


@pytest.fixture
def counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("oom_kill", "max"):
        (tmp_path / name).write_text(f"{name} 0\n")
    monkeypatch.setattr(shortages, "_oom_files", lambda: [tmp_path / "oom_kill"])
    monkeypatch.setattr(shortages, "_pids_files", lambda: [tmp_path / "max"])
    monkeypatch.setattr(shortages, "_own_bytes", lambda: 1000)
    monkeypatch.setattr(shortages, "_kernel", lambda: (6, 1))
    return tmp_path


@pytest.mark.parametrize(
    ("kernel", "peak_bytes", "is_hit"), [((6, 1), 999, False), ((6, 1), 1000, True), ((5, 17), 999, True)]
)
def test_a_job_whose_processes_were_all_smaller_than_the_mirror_was_not_killed(
    counts: Path, monkeypatch: pytest.MonkeyPatch, kernel: tuple[int, int], peak_bytes: int, is_hit: bool
) -> None:
    monkeypatch.setattr(shortages, "_kernel", lambda: kernel)
    watch = Shortages()
    (counts / "oom_kill").write_text("oom_kill 1\n")
    watch.check(5.0)
    if is_hit:
        with pytest.raises(Retryable) as caught:
            watch.raise_if_hit(4.0, peak_bytes, is_full=False)
        assert caught.value.reason is Reason.MEMORY_FULL
    else:
        watch.raise_if_hit(4.0, peak_bytes, is_full=False)
    watch.raise_if_hit(6.0, peak_bytes, is_full=False)
    watch.close()


@pytest.mark.parametrize(("peak_bytes", "is_hit"), [(999, False), (1000, True)])
def test_a_job_that_ended_with_success_may_have_been_hit_as_well(counts: Path, peak_bytes: int, is_hit: bool) -> None:
    watch = Shortages()
    (counts / "oom_kill").write_text("oom_kill 1\n")
    watch.check_success(5.0, peak_bytes)
    if is_hit:
        with pytest.raises(Retryable, match="killed"):
            watch.raise_if_hit(4.0, peak_bytes, is_full=False)
    else:
        watch.raise_if_hit(4.0, peak_bytes, is_full=False)
    (counts / "max").write_text("max 1\n")
    watch.check_success(7.0, 0)
    with pytest.raises(Retryable) as caught:
        watch.raise_if_hit(6.0, 0, is_full=False)
    assert caught.value.reason is Reason.PROCESSES_FULL
    watch.close()


def test_a_job_that_failed_when_the_machine_was_full_of_tasks_is_given_back(
    counts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Shortages()
    watch.check(1.0)
    watch.raise_if_hit(0.0, 0, is_full=False)
    monkeypatch.setattr(watch._tasks, "_limit", 1)
    watch.check(2.0)
    with pytest.raises(Retryable) as caught:
        watch.raise_if_hit(0.0, 0, is_full=False)
    assert caught.value.reason is Reason.PROCESSES_FULL
    watch.raise_if_hit(3.0, 0, is_full=False)
    watch.close()


@pytest.mark.parametrize("is_full", [True, False])
def test_a_job_that_failed_when_no_process_could_be_made_is_given_back(counts: Path, is_full: bool) -> None:
    watch = Shortages()
    watch.raise_if_hit(0.0, 0, is_full=False)
    if not is_full:
        (counts / "max").write_text("max 1\n")
        watch.check(1.0)
    with pytest.raises(Retryable) as caught:
        watch.raise_if_hit(0.0, 0, is_full=is_full)
    assert caught.value.reason is Reason.PROCESSES_FULL
    watch.close()
