"""A worker that is silent while commands wait for it is named, and named again when it answers."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.build_pages import pairs_of_page
from tests.e2e.cluster import Cluster, ancestors, cluster, new_tree, processes_running
from tests.e2e.conftest import MakePlace, needs_root
from tests.e2e.leftovers import assert_nothing_left
from tests.e2e.page_reader import PageReader, marks_of_page, pages_of, pages_of_tree
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


def expect_silence(whole: Cluster, process: "subprocess.Popen[bytes]", name: str = "w1") -> None:
    """Wait until the worker is named in status; its line stands on the command's stderr then."""
    wait_until(lambda: bool(silent(whole)), "the worker is silent", whole.master.text, limit_s=10)
    (worker,) = silent(whole)
    assert worker["name"] == name and 3.0 <= worker["silent_s"] < 10, worker
    assert [job["command"] for job in worker["jobs"]] == ["cat >/dev/null; echo done"], worker
    text = whole.tree.ctl("status").stdout.decode()
    assert f"silent    {name} for " in text and "1 command waits for it: cat" in text, text
    assert process.poll() is None


def expect_answer(whole: Cluster, process: "subprocess.Popen[bytes]", name: str = "w1") -> None:
    wait_until(lambda: not silent(whole), "the worker answers", whole.master.text)
    lines = [line for line in end(process) if f"worker {name}" in line]
    assert len(lines) == 2, lines
    assert f"termite: 1 command waits for worker {name}, which has been silent for 3 s: cat" in lines[0]
    assert f"termite: 1 command of worker {name} can go on: it answers again, after " in lines[1]
    log = whole.master.text()
    assert log.count(f"worker-silent worker={name} jobs=1 seconds=3") == 1, log
    assert log.count(f"worker-answers worker={name} seconds=") == 1, log
    assert whole.tree.status()["jobs"]["retried"] == 0


@pytest.fixture
def whole(make_place: MakePlace) -> Iterator[Cluster]:
    with make_place("ordinary") as where, cluster(new_tree(where), [where]) as running:
        yield running


def told_by(lines: str) -> dict[str, str]:
    """Return what `top` says of each worker, without the figures before it."""
    return {line.split()[0]: line for line in lines.splitlines() if line[:1] == "w" and line[1:2].isdigit()}


def test_silent_broken_lost_and_stopped_workers_are_told_apart_in_every_view(make_place: MakePlace) -> None:
    with (
        make_place("ordinary") as where,
        cluster(new_tree(where), [where] * 3, coordinator_flags=("-http", "0")) as whole,
        pages_of_tree(whole.tree) as pages,
    ):
        tree, farm = whole.tree, pages_of(whole.coordinator)
        tree.write("Makefile", "all: 1 2 3 4 5 6\n1 2 3 4 5 6:\n\t@sleep 1\n")
        assert tree.make("-j6").code == 0
        wait_until(lambda: len(tree.status()["workers"]) == 3, "three leases")
        wait_until(lambda: set(marks_of_page(pages.page("/")).values()) == {("well", "answers")}, "all are well")
        with waiting_job(whole) as process:
            (quiet,) = [lease["name"] for lease in tree.status()["workers"] if lease["running"]]
            named = dict(zip(("w1", "w2", "w3"), whole.workers, strict=True))
            killed, ended = sorted(named.keys() - {quiet})
            named[killed].process.kill()
            assert named[ended].stop() == 0
            stopped = [named[quiet].process.pid, *mirrors_of(named[quiet].process.pid)]
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            try:
                expect_silence(whole, process, quiet)
                expect_three_troubles(whole, pages, farm, (quiet, killed, ended))
            finally:
                for pid in stopped:
                    os.kill(pid, signal.SIGCONT)
            wait_until(lambda: marks_of_page(pages.page("/"))[quiet] == ("well", "answers"), "the page says so")
            wait_until(lambda: marks_of_page(farm.page("/"))[quiet] == ("well", "answers"), "the farm's, too")
            expect_answer(whole, process, quiet)
        assert tree.termite("sh", "-c", "sleep 4").stderr == b""  # a quiet command on a live worker
        assert silent(whole) == []


def expect_three_troubles(whole: Cluster, pages: PageReader, farm: PageReader, names: tuple[str, str, str]) -> None:
    """Wait until every view tells the silent, the killed and the ended one of `names` apart."""
    tree, (quiet, killed, ended) = whole.tree, names

    def marks(reader: PageReader) -> dict[str, str]:
        return {name: mark for name, (mark, _) in marks_of_page(reader.page("/")).items()}

    # The coordinator gives a worker up 15 s after its last heartbeat, a master only its connection.
    first = {quiet: "silent", killed: "broken", ended: "stopped"}
    wait_until(lambda: marks(pages) == first, "the master's view", lambda: str(marks_of_page(pages.page("/"))))
    words = {name: said for name, (_, said) in marks_of_page(pages.page("/")).items()}
    assert re.fullmatch(r"silent for [\d.]+ s; 1 job waits for it", words[quiet]), words
    assert re.fullmatch(r"the connection broke [\d.]+ s ago; no slot is leased", words[killed]), words
    assert re.fullmatch(r"stopped [\d.]+ s ago", words[ended]), words
    page = pages.page(f"/worker/{quiet}")
    assert '<span class="state silent">' in page and "cat &gt;/dev/null" in page.partition("Its jobs in the")[0]
    wait_until(lambda: marks(farm)[quiet] == "silent" and marks(farm)[ended] == "stopped", "the coordinator's view")
    lost = {quiet: "lost", killed: "lost", ended: "stopped"}
    wait_until(lambda: marks(farm) == lost, "two are lost", lambda: str(marks(farm)))
    last = {**first, killed: "lost"}
    wait_until(lambda: marks(pages) == last, "the master has heard of it", lambda: str(marks(pages)))
    told = told_by(tree.ctl("top", "-once").stdout.decode())
    assert "1 job waits for it" in told[quiet] and "lost: silent" in told[killed]
    assert "stopped " in told[ended]
    flags = ("-coordinator", whole.address, "-secret", str(whole.secret))
    told = told_by(tree.ctl("top", "-once", *flags).stdout.decode())
    assert "lost: silent" in told[quiet] and "lost: silent" in told[killed] and "stopped " in told[ended]
    status = {one["name"]: one for one in json.loads(farm.page("/status.json"))["workers"]}
    assert {name: (one["lost"], one["stopped"]) for name, one in status.items()} == {
        quiet: (True, False), killed: (True, False), ended: (False, True),
    }  # fmt: skip
    assert f'termite_worker_silent{{worker="{quiet}"}} 1.0' in pages.page("/metrics")
    assert f'termite_worker_stopped{{worker="{ended}"}} 1.0' in farm.page("/metrics")
    for name, why in ((killed, "it is lost"), (ended, "it was stopped")):
        page = farm.page(f"/worker/{name}")
        assert f"The worker says nothing: {why}." in page and "<button" not in page
    assert pairs_of_page(farm.page("/"))["stopped in the last hour"] == "1"


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
        assert "and is given up" in lines[1], lines
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
