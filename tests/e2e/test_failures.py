"""If any part of termite dies, outputs and exit code are those of a local build."""

import functools
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, Daemon, ancestors, cluster, new_tree, processes_running
from tests.e2e.conftest import USERS, MakePlace
from tests.e2e.leftovers import assert_nothing_left, look
from tests.e2e.waiting import wait_until

MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")
NAP = b"sleep\0001234.5"  # what a job of these tests waits with, as /proc shows it


@pytest.fixture(scope="module", autouse=True)
def killed_workers(make_place: MakePlace) -> Iterator[Cluster]:
    """Kill both workers of a cluster when this file begins.

    Until the coordinator counts them as lost, 18 s pass, in which other tests run.
    """
    with make_place("ordinary") as where, cluster(new_tree(where), [where, where]) as running:
        for worker in running.workers:
            worker.process.kill()
        yield running


@pytest.fixture
def whole(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Cluster]:
    """Yield the cluster of an ordinary user, or of the user that the test names."""
    with (
        make_place(getattr(request, "param", "ordinary")) as where,
        cluster(new_tree(where), [where, where]) as running,
    ):
        yield running


FOR_BOTH = pytest.mark.parametrize("whole", USERS, indirect=True)  # few tests: each cluster costs seconds


def start_job(whole: Cluster) -> "subprocess.Popen[bytes]":
    """Start a job that sleeps until it is run again, when a file `again` exists."""
    script = "if test -e again; then echo done >out; else echo half >out; sleep 1234.5; fi"
    tree = whole.tree
    process = tree.where.start([tree.where.termite("termite"), "sh", "-c", script], tree.path)
    wait_until(lambda: bool(processes_running(NAP)), "the job runs", whole.master.text)
    tree.write("again", "")
    return process


def worker_of_the_job(whole: Cluster) -> Daemon:
    chain = ancestors(processes_running(NAP)[0])
    (worker,) = [worker for worker in whole.workers if worker.process.pid in chain]
    return worker


def mirror_of_the_job() -> int:
    chain = ancestors(processes_running(NAP)[0])
    return next(pid for pid in chain if b"termite.fuse.mirror" in Path(f"/proc/{pid}/cmdline").read_bytes())


def expect_done(whole: Cluster, process: "subprocess.Popen[bytes]") -> bytes:
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (0, b""), stderr
    assert (whole.tree.path / "out").read_text() == "done\n"
    wait_until(lambda: not processes_running(NAP), "the first run is gone")
    return stderr


def test_a_worker_killed_in_mid_job_costs_a_retry(whole: Cluster) -> None:
    process = start_job(whole)
    worker_of_the_job(whole).process.kill()
    expect_done(whole, process)
    jobs = whole.tree.status()["jobs"]
    assert (jobs["retried"], jobs["local"]) == (1, 0), jobs


@FOR_BOTH
def test_a_mirror_killed_in_mid_job_costs_a_retry(whole: Cluster) -> None:
    process = start_job(whole)
    os.kill(mirror_of_the_job(), signal.SIGKILL)
    expect_done(whole, process)
    assert whole.tree.jobs("retried") == 1


def test_a_worker_that_is_stopped_in_mid_job_costs_a_retry(whole: Cluster) -> None:
    process = start_job(whole)
    assert worker_of_the_job(whole).stop() == 0
    expect_done(whole, process)


def _is_empty(group: Path) -> bool:
    return not (group / "cgroup.procs").read_text()


@pytest.fixture
def narrow(whole: Cluster) -> Iterator[Cluster]:
    """All that its workers start has 300 MB of memory, and no swap space, for each worker."""
    groups = []
    for worker in whole.workers:
        group = MEMORY_GROUPS / f"termite-test-{worker.process.pid}"
        group.mkdir()
        groups.append(group)
        (group / "memory.limit_in_bytes").write_text(str(300 << 20))
        (group / "cgroup.procs").write_text(str(worker.process.pid))
    yield whole
    for worker, group in zip(whole.workers, groups, strict=True):
        worker.stop()
        wait_until(functools.partial(_is_empty, group), "the group is empty")
        group.rmdir()


@pytest.mark.skipif(not os.access(MEMORY_GROUPS, os.W_OK), reason="no memory cgroups (v1) to write to")
def test_a_job_that_the_kernel_killed_for_want_of_memory_is_run_elsewhere(narrow: Cluster) -> None:
    big = ["/usr/bin/python3", "-c", "print(len(b'x' * (500 << 20)))"]
    said = b""
    for argv in (big, ["sh", "-c", '"$0" "$@" || exit 3', *big]):
        far = narrow.tree.termite(*argv)
        assert (far.code, far.stdout) == (0, b"%d\n" % (500 << 20)), far
        said += far.stderr
    assert b"worker's memory is full" in said and b"termite-worker with fewer -jobs" in said
    assert all(said.count(b"on this machine: worker w%d:" % number) <= 1 for number in (1, 2)), said
    jobs = narrow.tree.status()["jobs"]
    assert jobs["retried"] >= 4 and (jobs["remote"], jobs["local"]) == (0, 2), jobs


def test_with_no_worker_left_the_build_goes_on_here_and_says_so(whole: Cluster) -> None:
    process = start_job(whole)
    for worker in whole.workers:
        worker.process.kill()
    assert b"on this machine" in expect_done(whole, process)
    tree = whole.tree
    tree.write("Makefile", "all: a b\na b:\n\t@echo made >$@\n")
    made = tree.make("-j2")
    assert (made.code, made.stdout) == (0, b""), made
    assert b"termite" in made.stderr
    assert (tree.path / "b").read_text() == "made\n"


def test_with_local_runs_forbidden_a_master_killed_in_mid_build_fails_it_and_nothing_runs_here(whole: Cluster) -> None:
    tree = whole.tree
    tree.write("Makefile", f"all: a b\na:\n\t@kill -9 {whole.master.process.pid}\nb: a\n\t@echo made >$@\n")
    tree.write(".termite-localrc", '[{"Regexp": "kill", "Local": true}]')
    made = tree.make(env={"TERMITE_LOCAL": "never"})
    assert made.code == 2 and b"[Makefile:5: b] Error 103" in made.stderr, made
    # The master is gone, or just about to go.
    assert b"TERMITE_LOCAL=never forbids running the command on this machine" in made.stderr
    again = tree.termite("touch", "b", env={"TERMITE_LOCAL": "never"})
    assert (again.code, again.stderr.count(b"\n")) == (103, 1), again
    assert not (tree.path / "b").exists()


def test_a_worker_that_comes_later_is_used(whole: Cluster) -> None:
    for worker in whole.workers:
        worker.stop()
    whole.wait_for_workers(0)
    whole.tree.termite("echo", "x")
    before = whole.tree.jobs()
    whole.add_worker(whole.tree.where, "late", "-jobs", "2")
    whole.wait_for_workers(1)
    assert whole.tree.termite("echo", "x").code == 0
    assert whole.tree.jobs() == before + 1


def test_a_coordinator_that_dies_stops_nobody(whole: Cluster) -> None:
    whole.tree.termite("echo", "x")
    whole.coordinator.process.kill()
    before = whole.tree.jobs()
    assert whole.tree.termite("echo", "y").stdout == b"y\n"
    assert whole.tree.jobs() == before + 1


@FOR_BOTH
def test_a_master_killed_in_mid_job_loses_no_build(whole: Cluster) -> None:
    process = start_job(whole)
    whole.master.process.kill()
    expect_done(whole, process)
    assert whole.tree.termite("echo", "on").stdout == b"on\n"


def test_a_failing_job_is_not_retried(whole: Cluster) -> None:
    assert whole.tree.termite("sh", "-c", "echo x >>tried; exit 9").code == 9
    assert (whole.tree.path / "tried").read_text() == "x\n"
    assert whole.tree.jobs("retried") == 0


def test_no_process_and_no_mount_is_left_after_a_worker_was_killed(make_place: MakePlace) -> None:
    """Its empty scratch directory is, until the next worker starts there."""
    with make_place("ordinary") as where:
        tree = new_tree(where)
        with cluster(tree, [where]) as whole:
            process = start_job(whole)
            whole.workers[0].process.kill()
            expect_done(whole, process)
        wait_until(lambda: not look(where).processes, "all processes are gone", lambda: str(look(where)))
        assert not look(where).mounts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_daemons_end_cleanly_on_a_signal_and_leave_nothing(make_place: MakePlace, number: signal.Signals) -> None:
    with make_place("ordinary") as where:
        tree = new_tree(where)
        with cluster(tree, [where]) as whole:
            assert tree.termite("gcc", "--version").code == 0
            for running in (whole.master, *whole.workers, whole.coordinator):
                assert running.stop(number) == 0, running.text()
                assert "Traceback" not in running.text()
        assert_nothing_left(where, tree.path)


def test_nothing_is_left_after_an_embedded_cluster(make_place: MakePlace) -> None:
    with make_place("ordinary") as where:
        tree = new_tree(where)
        assert tree.ctl("start", str(tree.path)).code == 0
        assert tree.termite("sh", "-c", "gcc --version; echo x >/tmp/x; rm /tmp/x; echo y >made").code == 0
        assert tree.ctl("shutdown").code == 0
        assert not (tree.path / ".termite-socket").exists(), "shutdown answers when everything is gone"
        assert_nothing_left(where, tree.path)


def test_a_master_killed_while_a_command_has_the_network_loses_it(make_place: MakePlace) -> None:
    """Another machine may have noticed the command, so that it must not happen twice."""
    with make_place("ordinary") as where, cluster(new_tree(where), []) as whole:
        whole.tree.write(".termite-localrc", '[{"Regexp": "1234.5", "Network": true}]')
        whole.add_worker(where, "w1", "-jobs", "2", "-network", "allow")
        whole.wait_for_workers(1)
        process = start_job(whole)
        whole.master.process.kill()
        stdout, stderr = process.communicate(timeout=60)
        assert (process.returncode, stdout) == (101, b""), stderr
        assert b"the master went away while the command was running" in stderr
        assert not (whole.tree.path / "out").exists()


# The last test, because it waits until killed workers count as lost.
def test_with_local_runs_forbidden_a_job_without_workers_fails_with_103(killed_workers: Cluster) -> None:
    killed_workers.wait_for_workers(0)
    done = killed_workers.tree.termite("echo", "x", env={"TERMITE_LOCAL": "never"})
    assert (done.code, done.stdout) == (103, b"")
    assert done.stderr.startswith(b"termite"), done
