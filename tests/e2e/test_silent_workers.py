"""A worker that is silent while commands wait for it is named, and named again when it answers."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.cluster import Cluster, ancestors, cluster, new_tree, processes_running
from tests.e2e.conftest import MakePlace, needs_root
from tests.e2e.leftovers import assert_nothing_left
from tests.e2e.test_hosts import bridged, ip
from tests.e2e.waiting import wait_until


@contextmanager
def waiting_job(whole: Cluster) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a command that runs on a worker until the test ends it."""
    tree = whole.tree
    script = ["sh", "-c", "cat >/dev/null; echo done"]
    process = tree.where.start([tree.where.termite("termite"), *script], tree.path, stdin=subprocess.PIPE)
    try:
        wait_until(lambda: whole.tree.status()["slots"]["busy"] == 1, "the job runs", whole.master.text)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def end(process: "subprocess.Popen[bytes]") -> list[str]:
    """End the command, and return the lines of its stderr."""
    stdout, stderr = process.communicate(b"", timeout=60)
    assert (process.returncode, stdout) == (0, b"done\n"), stderr
    return stderr.decode().splitlines()


def silent(whole: Cluster) -> list[dict[str, Any]]:
    return list(whole.tree.status()["silent"])


def mirrors_of(worker: int) -> list[int]:
    """Return the processes of a worker's mirrors, outermost first."""
    return sorted(pid for pid in processes_running(b"termite.fuse.mirror") if worker in ancestors(pid))


def expect_silence(whole: Cluster, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the worker is named in status; its line stands on the command's stderr then."""
    wait_until(lambda: bool(silent(whole)), "the worker is silent", whole.master.text, limit_s=10)
    (worker,) = silent(whole)
    assert worker["name"] == "w1" and 3.0 <= worker["silent_s"] < 10, worker
    assert [job["command"] for job in worker["jobs"]] == ["cat >/dev/null; echo done"], worker
    text = whole.tree.ctl("status").stdout.decode()
    assert "silent    w1 for " in text and "1 command waits for it: cat" in text, text
    assert process.poll() is None


def expect_answer(whole: Cluster, process: "subprocess.Popen[bytes]") -> None:
    wait_until(lambda: not silent(whole), "the worker answers", whole.master.text)
    lines = [line for line in end(process) if "worker w1" in line]
    assert len(lines) == 2, lines
    assert "termite: worker w1 has been silent for 3 s; 1 command waits for it: cat" in lines[0]
    assert "termite: worker w1 answers again, after " in lines[1]
    log = whole.master.text()
    assert log.count("worker-silent worker=w1 jobs=1 seconds=3") == 1, log
    assert log.count("worker-answers worker=w1 seconds=") == 1, log
    assert whole.tree.status()["jobs"]["retried"] == 0


@pytest.fixture
def whole(make_place: MakePlace) -> Iterator[Cluster]:
    with make_place("ordinary") as where, cluster(new_tree(where), [where]) as running:
        yield running


def test_a_stopped_worker_is_named_while_a_command_waits_for_it(whole: Cluster) -> None:
    assert whole.tree.termite("true").code == 0  # an idle lease is no reason for a notice
    worker = whole.workers[0].process.pid
    with waiting_job(whole) as process:
        stopped = [worker, *mirrors_of(worker)]  # the worker first, which would resume its mirror
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            expect_silence(whole, process)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        expect_answer(whole, process)
    assert whole.tree.termite("sh", "-c", "sleep 4").stderr == b""  # a quiet command on a live worker
    assert silent(whole) == []


def test_a_silent_worker_that_dies_is_given_up(whole: Cluster) -> None:
    worker = whole.workers[0].process.pid
    with waiting_job(whole) as process:
        for pid in (mirrors := [*mirrors_of(worker)]):
            os.kill(pid, signal.SIGSTOP)
        os.kill(worker, signal.SIGSTOP)
        expect_silence(whole, process)
        for pid in mirrors:
            os.kill(pid, signal.SIGKILL)
        os.kill(worker, signal.SIGCONT)
        lines = [line for line in end(process) if "worker w1" in line]
        assert "is given up: its commands start again" in lines[1], lines
    assert silent(whole) == []


@needs_root
def test_a_pulled_cable_is_named_and_its_return_too(make_place: MakePlace) -> None:
    with make_place("ordinary", network=True) as home, make_place("ordinary", network=True) as away:
        tree = new_tree(home)
        with (
            bridged([home, away]) as addresses,
            cluster(tree, [away], host=addresses[0]) as whole,
            waiting_job(whole) as process,
        ):
            ip(away.holder, "link set eth0 down")
            expect_silence(whole, process)
            ip(away.holder, "link set eth0 up")
            expect_answer(whole, process)
        assert_nothing_left(home, tree.path)
