"""termite-ctl lists masters, shows logs and stores; daemons show their tasks at SIGUSR1."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import trio

from termite.cli.readers.farm_questions import Coordinator
from termite.engine.history.logic.job_record import Where, Why
from termite.engine.loop.readiness import wait_until_readable
from termite.engine.wire.addresses import split_address
from termite.engine.wire.protocol.fleet_messages import WholeFarm, WorkerReport
from tests.build_pages import pairs_of_page, rows_of_page
from tests.e2e.cluster import Cluster, Tree, cluster, daemon, embedded, new_tree, processes_running
from tests.e2e.conftest import USERS, MakePlace
from tests.e2e.page_reader import PageReader, marks_of_page, pages_at, pages_of
from tests.e2e.test_records import last_build
from tests.e2e.waiting import wait_until

BURN = "import time\nwhile time.process_time() < 0.4: pass"


@pytest.fixture(scope="module", params=USERS)
def whole(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Cluster]:
    with (
        make_place(request.param) as where,
        cluster(new_tree(where), [where], coordinator_flags=("-http", "0")) as running,
    ):
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
        assert f"1 on workers, 0 local, 0 running  {second.path}\n" in text
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
        assert wait_until_readable([master], 10), "the master has not ended"
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


def held_job(whole: Cluster, stack: ExitStack) -> "subprocess.Popen[bytes]":
    """Start a job that burns CPU, and then lasts until its standard input ends."""
    words = [whole.tree.where.termite("termite"), "sh", "-c", f"python3 -c '{BURN}'; echo burnt; cat"]
    job = whole.tree.where.start(words, whole.tree.path, stdin=subprocess.PIPE)
    assert job.stdin is not None and job.stdout is not None
    stack.callback(job.kill)
    stack.callback(job.stdin.close)
    assert job.stdout.readline() == b"burnt\n"
    return job


def end_job(job: "subprocess.Popen[bytes]") -> None:
    said, _ = job.communicate(b"the end", timeout=30)
    assert (said, job.returncode) == (b"the end", 0)


def asked_without_key(whole: Cluster, worker: str) -> tuple[WholeFarm, WorkerReport]:
    """Return what a coordinator tells who has the secret, and not the token of its pages."""

    async def ask() -> tuple[WholeFarm, WorkerReport]:
        place = split_address(whole.address, 0)
        secret = whole.secret.read_bytes().rstrip()  # read_secret takes no file of another user
        async with Coordinator(place, secret, "test").connected() as desk:
            return await desk.list_farm(), await desk.get_report(worker)

    return trio.run(ask)


def test_pages_and_commands_show_and_drain_the_workers_of_the_farm(whole: Cluster) -> None:
    lease_both(whole)
    pages, tree = pages_of(whole.coordinator), whole.tree
    user = f"{tree.plain('id', '-un').stdout.decode().strip()}@{os.uname().nodename}"
    before = {name: pairs_of_page(pages.page(f"/worker/{name}")) for name in ("w1", "w2")}
    with ExitStack() as stack:
        jobs = [held_job(whole, stack) for _ in range(3)]
        for name, slots in (("w1", 2), ("w2", 1)):
            wait_until(lambda name=name, slots=slots: f"{slots} of them run" in pages.page(f"/worker/{name}"), name)  # type: ignore[misc]
        told = rows_of_page(pages.page("/worker/w1"))
        (lease,) = [row for row in told if row[0] == user and len(row) == 6]
        assert lease[2] == "2 of 2"
        wait_until(lambda: [user, "3", "3", "2"] in rows_of_page(pages.page("/")), "the users", lambda: pages.page("/"))
        front = {row[0]: row for row in rows_of_page(pages.page("/")) if len(row) == 9}
        assert front["w1"][2] == "2 of 2" and front["w2"][2] == "1 of 1" and front["w1"][7] == f"{user}: 2"
        status = json.loads(pages.page("/status.json"))
        assert [(one["name"], one["leased"], one["drained"]) for one in status["workers"]] == [
            ("w1", 2, False), ("w2", 1, False),
        ]  # fmt: skip

        pages.press("/worker/w1", "/drain/w1")
        drained = pages.page("/worker/w1")
        assert "drained: it takes no new jobs, while 2 jobs still run" in drained
        wait_until(lambda: tree.status()["drained"] == ["w1"], "the master knows it")
        assert b"drained   w1 takes no new jobs\n" in tree.ctl("status").stdout
        assert b"drained; 2 jobs still run" in tree.ctl("top", "-once").stdout
        farm = tree.ctl("top", "-once", "-coordinator", whole.address, "-secret", str(whole.secret)).stdout.decode()
        assert "2 workers, 1 of them drained" in farm
        assert 'termite_worker_drained{worker="w1"} 1.0' in pages.page("/metrics")
        end_job(jobs.pop())
        end_job(jobs.pop())
        end_job(jobs.pop())
    wait_until(lambda: [one["name"] for one in tree.status()["workers"]] == ["w2"], "the idle lease is closed")
    done = jobs_of(pairs_of_page(pages.page("/worker/w2")))[0]
    for _ in range(3):
        assert tree.termite("echo", "on", env={"TERMITE_LOCAL": "never"}).stdout == b"on\n"
    wait_until(lambda: jobs_of(pairs_of_page(pages.page("/worker/w2")))[0] == done + 3, "three jobs there")
    idle = "drained: it takes no new jobs"  # an answer is kept for a second
    wait_until(lambda: pairs_of_page(pages.page("/worker/w1"))["state"] == idle, "w1 is idle")
    after = pairs_of_page(pages.page("/worker/w1"))
    assert jobs_of(after) == (jobs_of(before["w1"])[0] + 2, 0)
    assert 0.8 <= cpu_of(after) - cpu_of(before["w1"]) < 3
    assert tree.ctl("undrain", "w1").stdout == b"w1 takes jobs\n"
    wait_until(lambda: not tree.status()["drained"], "the master knows it")
    lease_both(whole)
    assert tree.make("-j3").code == 0
    assert whole.jobs_by_worker()["w1"] > 0
    wrong = tree.ctl("drain", "w11")
    assert wrong.code == 100 and b"there is no worker w11: write w1" in wrong.stderr


def jobs_of(pairs: dict[str, str]) -> tuple[int, int]:
    """Return the numbers of jobs of a worker, and of those that run."""
    every, running = pairs["jobs"].removesuffix(" of them run now").split(", ")
    return int(every), int(running)


def cpu_of(pairs: dict[str, str]) -> float:
    number, unit = pairs["CPU used by its jobs"].split()
    return float(number) / {"ms": 1000, "s": 1}[unit]


def test_users_and_their_paths_are_for_those_who_have_the_token(whole: Cluster) -> None:
    lease_both(whole)
    pages, name = pages_of(whole.coordinator), str(whole.tree.path)
    assert "lease-granted pid=" in pages.page("/worker/w1") and name in pages.page("/worker/w1")
    for path in ("/", "/worker/w1", "/status.json", "/metrics", "/now", "/worker-now/w1"):
        status, text = pages.ask(path, token="")
        assert status == 403 and name not in text and "@" not in text
    assert pages.ask("/drain/w1", "token=no")[0] == 403
    farm, report = asked_without_key(whole, "w1")
    assert [(one.worker.name, one.uses) for one in farm.workers] == [("w1", ()), ("w2", ())]
    assert [(lease.user, lease.slots) for lease in report.leases] == [("", 2)]
    assert report.log and not [line for line in report.log if name in line or " pid=" in line]


def test_the_stores_on_a_page_are_those_on_the_disk(whole: Cluster) -> None:
    pages, where = pages_of(whole.coordinator), whole.workers[0].where
    whole.tree.write("input", os.urandom(300_000))
    lease_both(whole)

    def stores() -> list[list[str]]:
        """Return the rows of the stores. A mirror that has just ended has one, too."""
        return [row for row in rows_of_page(pages.page("/worker/w2")) if len(row) == 5 and row[0] != "store"]

    def is_shown() -> bool:
        there = len(list((where.base / "cache-w2").glob("**/cas/??/*")))
        return sum(int(store[3]) for store in stores()) == there > 0

    wait_until(is_shown, "the files", lambda: str(stores()))
    # The first user of a root worker has a half, the next one a sixth, then a twelfth.
    assert {store[4] for store in stores()} <= {"1000000", "500000", "166666", "83333"}


def test_the_pages_of_a_tree_show_and_drain_the_workers_of_its_master(whole: Cluster) -> None:
    lease_both(whole)
    where, tree = whole.tree.where, whole.tree
    served = where.start([where.termite("termite-ctl"), "web", "-http", "0"], tree.path)
    try:
        assert served.stdout is not None
        pages = pages_at(where, served.stdout.readline().decode())
        wait_until(lambda: "w2" in pages.page("/"), "the pages follow the master")
        page = pages.page("/worker/w2")
        (lease,) = [row for row in rows_of_page(page) if len(row) == 6 and row[0] == "a user"]
        assert lease[2] == "0 of 1" and int(lease[3]) > 0
        assert f"master={os.uname().nodename}:{tree.path}" in page, "its own records are shown"
        end_a_job_on_its_page(tree, pages)
        assert pages.ask("/drain/w2", "token=no")[0] == 403
        pages.press("/worker/w2", "/drain/w2")
        assert pairs_of_page(pages.page("/worker/w2"))["slots in leases"] == "0"
        wait_until(
            lambda: marks_of_page(pages.page("/"))["w2"][0] == "drained",
            "the page says so",
        )
        pages.press("/worker/w2", "/undrain/w2")
        wait_until(lambda: not tree.status()["drained"], "the master knows it")
        assert "there is no worker w9" in pages.page("/worker/w9")
    finally:
        served.send_signal(signal.SIGINT)
        served.communicate(timeout=20)


def end_a_job_on_its_page(tree: Tree, pages: PageReader) -> None:
    """Press the button of a job that runs on a worker, and see its end and its record."""
    nap = b"sleep\0002345.25"
    job = tree.where.start([tree.where.termite("termite"), "sleep", "2345.25"], tree.path)
    wait_until(lambda: bool(processes_running(nap)), "the job runs")

    def sent_jobs() -> list[dict[str, Any]]:
        jobs = json.loads(pages.page("/status.json"))["jobs"]
        return [one for one in jobs if "2345.25" in one["text"] and one["sent_s"]]

    wait_until(lambda: len(sent_jobs()) == 1, "the pages know it")
    (shown,) = sent_jobs()
    assert pages.ask(f"/job/{shown['id']}/kill", "token=no")[0] == 403
    assert processes_running(nap) and job.poll() is None
    pages.press(f"/job/{shown['id']}", f"/job/{shown['id']}/kill")
    job.communicate(timeout=30)
    assert job.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
    wait_until(lambda: not processes_running(nap), "the command is gone")
    wait_until(lambda: "End this job" not in pages.page(f"/job/{shown['id']}"), "its record")
    page = pages.page(f"/job/{shown['id']}")
    assert "its launcher ended before the job did; killed by SIGTERM" in page, page
    (recorded,) = [one for one in last_build(tree, "")[1] if one.id == shown["id"]]
    assert (recorded.where, recorded.cause.kind) == (Where.NOWHERE, Why.CANCELLED)
    assert (recorded.worker, recorded.signal) == (shown["worker"], signal.SIGTERM)


def test_an_embedded_worker_drains_and_takes_jobs_again(make_place: MakePlace) -> None:
    with make_place("ordinary") as where, embedded(new_tree(where)) as tree:
        assert tree.termite("echo", "on").code == 0
        assert tree.ctl("drain", "here").code == 0
        wait_until(lambda: tree.status()["drained"] == ["here"], "the master knows it")
        remote = tree.jobs()
        assert tree.termite("echo", "local").stdout == b"local\n"
        refused = tree.termite("echo", "nowhere", env={"TERMITE_LOCAL": "never"})
        assert refused.code == 103 and tree.jobs() == remote
        assert tree.ctl("undrain", "here").code == 0
        wait_until(lambda: tree.termite("echo", "x").code == 0 and tree.jobs() > remote, "a remote job")
