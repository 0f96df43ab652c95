"""termite-ctl lists masters, shows logs and stores; daemons show their tasks at SIGUSR1."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Cluster, cluster, daemon, embedded, new_tree
from tests.e2e.conftest import USERS, MakePlace
from tests.e2e.waiting import wait_until


@pytest.fixture(scope="module", params=USERS)
def whole(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Cluster]:
    with make_place(request.param) as where, cluster(new_tree(where), [where]) as running:
        running.add_worker(where, "w2", "-jobs", "1", "-log-format", "json")
        running.wait_for_workers(2)
        yield running


def lease_both(whole: Cluster) -> None:
    """Run commands until the master holds slots of both workers."""
    whole.tree.write("Makefile", "all: 1 2 3\n1 2 3:\n\t@sleep 0.5\n")
    assert whole.tree.make("-j3").code == 0
    wait_until(lambda: len(whole.tree.status()["workers"]) == 2, "two leases")


def test_masters_are_listed_wherever_their_trees_are(whole: Cluster) -> None:
    where = whole.tree.where
    lease_both(whole)
    with embedded(new_tree(where, "second")) as second:
        assert second.termite("echo", "on").code == 0
        listed = {entry["tree"]: entry for entry in json.loads(second.ctl("ls", "-json").stdout)}
        assert listed.keys() == {str(whole.tree.path), str(second.path)}
        for tree in (whole.tree, second):
            status, entry = tree.status(), listed[str(tree.path)]
            assert entry["pid"] == status["pid"] and entry["started"] == status["started"]
            assert entry["jobs"]["remote"] == status["jobs"]["remote"] > 0
        text = where.run([where.termite("termite-ctl"), "ls"], where.base).stdout.decode()
        assert f"1 on workers, 0 here, 0 running  {second.path}\n" in text
        pid = second.status()["pid"]
        os.kill(pid, signal.SIGSTOP)  # a master that stands still hides no other one
        try:
            text = second.ctl("ls").stdout.decode()
        finally:
            os.kill(pid, signal.SIGCONT)
        assert str(whole.tree.path) in text and f"the master (process {pid}) does not answer" in text
    assert str(second.path).encode() not in where.run([where.termite("termite-ctl"), "ls"], where.base).stdout


def test_a_master_whose_tree_is_moved_ends_and_the_next_one_has_its_records(make_place: MakePlace) -> None:
    with make_place("ordinary") as where, embedded(new_tree(where)) as tree:
        assert tree.termite("sh", "-c", "echo old >made").code == 0
        builder = where.start([where.termite("termite"), "sh", "-c", "sleep 3; pwd >late"], tree.path)
        wait_until(lambda: tree.status()["jobs"]["running"] == 1, "a job that runs")
        master = os.pidfd_open(tree.status()["pid"])
        moved = tree.path.rename(tree.path.with_name("moved"))
        tree.path.mkdir()
        tree.own(tree.path)
        assert select.select([master], [], [], 10)[0], "the master has not ended"
        os.close(master)
        with embedded(tree):
            (listed,) = json.loads(tree.ctl("ls", "-json").stdout)
            assert listed["tree"] == str(tree.path) and listed["pid"] == tree.status()["pid"]
            tree.write("Makefile", "made:\n\techo new >made\n")
            assert tree.make().code == 0
            assert b"echo new" in tree.ctl("log", "made").stdout, "the records are those of the older master"
        assert builder.wait(30) == 0, "its launcher has run the command again"
        assert (moved / "late").read_text() == f"{moved}\n" and not (tree.path / "late").exists()
        assert (moved / "made").read_text() == "old\n"


def test_the_logs_of_the_master_and_of_its_workers_are_shown(whole: Cluster) -> None:
    tree = whole.tree
    lease_both(whole)
    assert b" lease-opened lease=" in tree.ctl("logs").stdout
    first = tree.ctl("logs", "w1").stdout.decode()
    assert " INFO    lease-granted pid=" in first and "lease-opened" in first
    records = [json.loads(line) for line in tree.ctl("logs", "w2", "-lines", "1000").stdout.splitlines()]
    (granted,) = [record for record in records if record.get("event") == "lease-granted"]
    assert granted["level"] == "info" and granted["slots"] == 1
    assert len(tree.ctl("logs", "-lines", "1").stdout.splitlines()) == 1
    wrong = tree.ctl("logs", "w11")
    assert wrong.code == 100 and b"there is no worker w11: write w1" in wrong.stderr
    other = tree.ctl("logs", "vm")
    assert other.code == 100 and b"this master holds slots of w1, w2" in other.stderr


def test_a_worker_shows_no_records_about_other_masters(whole: Cluster) -> None:
    lease_both(whole)
    where, other = whole.tree.where, new_tree(whole.tree.where, "other")
    flags = ("-secret", str(whole.secret), "-coordinator", whole.address, "-short", "0")
    with daemon(where, "termite-master", *flags, cwd=other.path):
        wait_until(
            lambda: other.termite("echo", "on").code == 0 and other.jobs() > 0, "a remote job of the other master"
        )
        worker = other.status()["workers"][0]["name"]
        theirs, ours = (tree.ctl("logs", worker, "-lines", "1000").stdout for tree in (other, whole.tree))
    assert theirs.count(b"lease-granted") == 1, theirs
    assert ours.count(b"lease-granted") == 1, ours
    assert theirs != ours


def test_a_log_is_followed_until_the_master_ends(make_place: MakePlace) -> None:
    with make_place("ordinary") as where, embedded(new_tree(where)) as tree:
        argv = [where.termite("termite-ctl"), "logs", "-f", "-lines", "1000"]
        following = where.start(argv, tree.path, stdout=subprocess.PIPE)
        assert following.stdout is not None
        assert b"worker-registered" in following.stdout.readline()
        os.kill(tree.status()["pid"], signal.SIGUSR1)
        while b"tasks-shown tasks=" not in (line := following.stdout.readline()):
            assert line, "it has ended"
        assert following.stdout.readline().startswith(b"    ")
        assert tree.termite("echo", "on").stdout == b"on\n", "the master has died of the signal"
        assert tree.ctl("shutdown").code == 0
        following.communicate(timeout=30)
        assert following.returncode == 0
        assert tree.ctl("shutdown").code == 0, "without a master, this is a success"


def test_every_daemon_shows_its_tasks_and_goes_on(whole: Cluster) -> None:
    for running in (whole.master, whole.coordinator, *whole.workers):
        running.process.send_signal(signal.SIGUSR1)
        running.wait_for("tasks-shown")
        assert running.process.poll() is None
        assert "serve_" in running.text().partition("tasks-shown")[2]


def test_the_stores_are_shown_and_emptied_when_nobody_uses_them(make_place: MakePlace) -> None:
    with make_place("ordinary") as where:
        tree = new_tree(where)
        tree.write("input", os.urandom(200_000))
        with embedded(tree):
            assert tree.termite("cksum", "input").code == 0
            kinds = {store["store"]: store for store in json.loads(tree.ctl("cache", "-json").stdout)}
            assert kinds.keys() == {"contents", "layers", "digests"}
            assert kinds["contents"]["size_bytes"] >= 200_000 and kinds["contents"]["is_in_use"]
            kept = tree.ctl("cache", "clean")
            assert kept.code == 100 and kinds["contents"]["path"].encode() in kept.stderr, kept
            assert b"digests" in tree.ctl("cache").stdout
            assert tree.termite("cksum", "input").code == 0
        cleaned = tree.ctl("cache", "clean")
        assert cleaned.code == 0 and cleaned.stdout.count(b" removed from ") == 3, cleaned
        assert b"there are no stores" in tree.ctl("cache").stdout
        with embedded(tree):
            assert tree.termite("cksum", "input").code == 0
            assert tree.jobs() == 1
