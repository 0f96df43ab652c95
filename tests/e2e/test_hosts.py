"""Several hosts, each in a network namespace of its own, joined by veth through a bridge."""

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from termite.engine.history.logic.job_record import BuildRecord, JobRecord, Where
from tests.build_pages import rows_of_page
from tests.e2e.cluster import Cluster, Tree, ancestors, cluster, daemon, new_tree, processes_running
from tests.e2e.conftest import MakePlace, needs_root
from tests.e2e.leftovers import assert_nothing_left
from tests.e2e.page_reader import pages_of
from tests.e2e.places import COMMANDS, Place, held
from tests.e2e.shown_builds import check_views
from tests.e2e.snapshot import snapshot
from tests.e2e.terminals import on_terminal
from tests.e2e.test_records import SLACK_S, last_build, the
from tests.e2e.waiting import wait_until

pytestmark = needs_root
PROJECTS = {"lua5.4": ("make -j4 linux",), "zlib": ("./configure && rm configure.log", "make -j4")}


@contextmanager
def bridged(hosts: Sequence[Place]) -> Iterator[list[str]]:
    """Give each host an address in one network, with a bridge in a namespace of its own."""
    with held(["unshare", "--net", "sh", "-c", "echo ready; read -r _"]) as switch:
        ip(switch, "link add bridge type bridge")
        ip(switch, "link set bridge up")
        addresses = []
        for number, host in enumerate(hosts, 1):
            ip(switch, f"link add port{number} type veth peer name eth0 netns {host.holder}")
            ip(switch, f"link set port{number} master bridge up")
            addresses.append(f"10.77.0.{number}")
            ip(host.holder, "link set lo up")
            ip(host.holder, f"address add {addresses[-1]}/24 dev eth0")
            ip(host.holder, "link set eth0 up")
        yield addresses


def ip(pid: int, words: str) -> None:
    subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", "ip", *words.split()], check=True, timeout=10)


@pytest.fixture(scope="module")
def five_hosts(make_place: MakePlace) -> Iterator[tuple[Cluster, Place]]:
    """Yield a cluster on four hosts, and a fifth host of root.

    They have a user's master and coordinator, a worker of root and a worker of a user.
    """
    with (
        make_place("ordinary", network=True) as home,
        make_place("root", network=True) as other,
        make_place("ordinary", network=True) as middle,
        make_place("root", network=True) as rooted,
        make_place("ordinary", network=True) as rootless,
        bridged([home, middle, rooted, rootless, other]) as addresses,
        cluster(
            new_tree(home),
            [rooted, rootless],
            jobs=3,
            coordinator_at=middle,
            host=addresses[1],
            coordinator_flags=("-http", "0"),
        ) as whole,
    ):
        yield whole, other


@pytest.fixture(scope="module")
def four_hosts(five_hosts: tuple[Cluster, Place]) -> Cluster:
    return five_hosts[0]


def copied(pristine: Path, where: Place) -> Path:
    """Copy a source tree to a place whose user can read it."""
    copy = where.base / f"{pristine.name}-pristine"
    subprocess.run(["cp", "-r", pristine, copy], check=True)
    subprocess.run(["chmod", "-R", "a+rX", copy], check=True)
    return copy


def build(tree: Tree, project: Path, commands: Sequence[str]) -> tuple[dict[bytes, object], dict[bytes, object]]:
    """Return the results of a local and a remote build of `project`, at the same path."""
    made: list[dict[bytes, object]] = []
    for prefix in ("", f"{shlex.quote(str(COMMANDS))}/termite-"):
        assert tree.plain("sh", "-c", f"rm -rf work && cp -r {project} work").code == 0
        for command in commands:
            words = f"{prefix}{command}" if command.startswith("make") else command
            done = tree.plain("sh", "-c", words, within="work", timeout_s=300)
            assert done.code == 0, done
        made.append(dict(snapshot(tree.path / "work")))
    return made[0], made[1]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("project", PROJECTS)
def test_two_workers_build_a_project_to_the_same_bits(
    four_hosts: Cluster, source: Callable[[str], Path], project: str
) -> None:
    before = four_hosts.jobs_by_worker()
    tree = four_hosts.tree.subtree(project)
    near, far = build(tree, copied(source(project), tree.where), PROJECTS[project])
    assert [path for path in near.keys() | far.keys() if near.get(path) != far.get(path)] == []
    after = four_hosts.jobs_by_worker()
    assert len(after) == 2
    assert all(after[name] > before.get(name, 0) for name in after), (before, after)


def test_pages_show_and_drain_workers_on_other_hosts(four_hosts: Cluster) -> None:
    """The coordinator's host asks a worker over the connection that the worker has opened."""
    tree, pages = four_hosts.tree.subtree("drained"), pages_of(four_hosts.coordinator)
    tree.write("Makefile", "all: 1 2 3 4\n1 2 3 4:\n\t@sleep 0.3\n")
    assert tree.make("-j4").code == 0
    status = json.loads(pages.page("/status.json"))
    assert [(one["name"], one["address"].rpartition(":")[0]) for one in status["workers"]] == [
        ("w1", "10.77.0.3"), ("w2", "10.77.0.4"),
    ]  # fmt: skip
    for name in ("w1", "w2"):  # of root and of an ordinary user

        def lease(name: str = name) -> list[str]:
            (row,) = [row for row in rows_of_page(pages.page(f"/worker/{name}")) if len(row) == 6 and row[0] != "user"]
            return row

        wait_until(lambda: lease()[2] == "0 of 3", "a page that knows the end of the jobs")
        assert lease()[0] == f"builder@{os.uname().nodename}" and int(lease()[3]) > 0
    flags = ("-coordinator", four_hosts.address, "-secret", str(four_hosts.secret))
    assert tree.ctl("drain", "w1", *flags).code == 0
    wait_until(lambda: tree.status()["drained"] == ["w1"], "the master knows it")
    before = four_hosts.jobs_by_worker()["w2"]
    assert tree.make("-j2", env={"TERMITE_LOCAL": "never"}).code == 0
    assert four_hosts.jobs_by_worker() == {"w2": before + 4}
    assert "drained: it takes no new jobs" in pages.page("/worker/w1")
    assert tree.ctl("undrain", "w1", *flags).code == 0


@pytest.mark.parametrize("user", ["ordinary", "root"])
def test_every_view_is_true_of_workers_on_other_hosts(five_hosts: tuple[Cluster, Place], user: str) -> None:
    """The test finds the worker of a job by the job's ancestors, and its times in its files."""
    whole, other = five_hosts
    with ExitStack() as stack:
        top, tree = whole.tree, whole.tree.subtree("seen")
        if user == "root":
            top = tree = new_tree(other, "seen")
            flags = ("-secret", str(whole.secret_for(other)), "-coordinator", whole.address, "-short", "0")
            stack.enter_context(daemon(other, "termite-master", *flags, cwd=tree.path))
        tree.write("Makefile", SEEN)
        top.write(".termite-localrc", '[{"Regexp": "^: here", "Local": true}]')
        farm = ("-coordinator", whole.address, "-secret", str(whole.secret_for(tree.where)))
        building = tree.where.start([tree.where.termite("termite-make"), "-k", "-j4"], tree.path)
        stack.callback(end_group, building)
        workers = {name: worker_of(whole, nap) for name, nap in NAPS.items()}
        check_running(tree, workers, farm)
        for nap in NAPS.values():
            os.kill(processes_running(nap)[0], signal.SIGTERM)
        building.communicate(timeout=60)
        doctor = tree.where.start([tree.where.termite("termite-ctl"), "doctor", *farm], tree.path)  # meanwhile
        build, jobs = last_build(top)
        check_ended(tree, build, jobs, workers)
        check_terminals(tree, the(jobs, ">one.begin").id)
        check_lists(whole, top, set(workers.values()))
        said = doctor.communicate(timeout=60)[0].decode()
        assert doctor.returncode in (0, 104) and said.count("a job ran in") == 3, said
        assert all(f"\nworker {name}:\n  ok       reach" in said for name in ("w1", "w2")), said


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End what a test that has failed has left of a build."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


# The master of root may get only two slots, of which two jobs hold one each for long.
SEEN = """all: failed one two here
one:
	@date +%s.%N >$@.begin; sleep 987.625; date +%s.%N >$@.end
two:
	@date +%s.%N >$@.begin; sleep 987.875; date +%s.%N >$@.end
failed:
	@echo broken >&2; exit 3
here:
	@: here; date +%s.%N >$@.begin; sleep 0.2; date +%s.%N >$@.end
"""
NAPS = {"one": b"sleep\000987.625", "two": b"sleep\000987.875"}


def worker_of(whole: Cluster, words: bytes) -> str:
    """Return the worker that is an ancestor of a process, as soon as the process runs."""
    wait_until(lambda: bool(processes_running(words)), f"{words!r} runs", whole.master.text)
    chain = ancestors(processes_running(words)[0])
    (number,) = [number for number, worker in enumerate(whole.workers, 1) if worker.process.pid in chain]
    return f"w{number}"


def check_running(tree: Tree, workers: dict[str, str], farm: Sequence[str]) -> None:
    """Compare the views of what runs with the workers on which the jobs `one` and `two` run."""
    wait_until(lambda: tree.status()["jobs"]["running"] == 2, "the other jobs have ended")
    top = tree.ctl("top", "-once").stdout.decode()
    shown = re.findall(r"^ +\d+ +(w\d):\d +runs .*>(\w+)\.begin", top, re.MULTILINE)
    assert {job: worker for worker, job in shown} == workers and "2 running, 0 waiting" in top, top
    assert re.search(r"^w1 .*\nw2 ", top, re.MULTILINE), top
    whole = tree.ctl("top", "-once", *farm).stdout.decode()
    assert "2 workers, 0 of them drained" in whole and re.search(r"^w1 .*\nw2 ", whole, re.MULTILINE), whole
    for worker in set(workers.values()):
        said = tree.ctl("logs", worker).stdout.decode()
        assert re.search(rf"lease-granted .*master={os.uname().nodename}:\S*", said), said


def check_ended(tree: Tree, build: BuildRecord, jobs: list[JobRecord], workers: dict[str, str]) -> None:
    """Compare records, and every view of them, with what the jobs have done."""
    found = {name: the(jobs, word) for name, word in (*((job, f">{job}.begin") for job in NAPS), ("failed", "broken"))}
    assert (build.exit_code, build.jobs, len(jobs)) == (2, 4, 4), build
    for name, worker in workers.items():
        job = found[name]
        assert (job.where, job.worker, job.exit_code, job.signal) == (Where.WORKER, worker, 0, 0)
        times = [job.queued_s, job.sent_s, job.started_s, *stamps(tree, name), job.ended_s, job.home_s]
        assert all(first <= second + SLACK_S for first, second in itertools.pairwise(times)), times
        shown = tree.ctl("log", f"{name}.end").stdout.decode()
        assert f"place     {worker}:{job.slot}\n" in shown and f"wrote     {tree.path}/{name}.begin\n" in shown, shown
    assert (found["failed"].where, found["failed"].exit_code) == (Where.WORKER, 3)
    assert found["failed"].output == b"broken\n"
    here = the(jobs, ": here")
    times = [here.sent_s, *stamps(tree, "here"), here.home_s]
    assert here.where is Where.HERE and times == sorted(times)
    check_views(tree, build, jobs)
    seen = tree.ctl("shell", str(found["one"].id), "--", "sh", "-c", "pwd; id -u; cat one.end")
    assert seen.stdout.decode() == f"{tree.path}\n{tree.where.uid}\n{(tree.path / 'one.end').read_text()}", seen


def check_terminals(tree: Tree, job: int) -> None:
    """Use the terminal of a job, and of a shell, as a person does: its size, its keys, its end."""
    script = "trap 'stty size; exit 5' WINCH; tty; stty size; echo ready; while :; do sleep 0.1; done"
    words = [tree.where.termite("termite"), "sh", "-c", script]
    with on_terminal(tree.where, words, tree.path, env={"TERMITE_LOCAL": "never"}) as terminal:
        assert terminal.read_until(b"ready\r\n").endswith(b"/dev/pts/0\r\n33 77\r\n")
        terminal.resize(11, 222)
        assert terminal.finish() == (5, b"11 222\r\n")
    words = [tree.where.termite("termite-ctl"), "shell", "-keep", str(job), "--", "sh"]
    with on_terminal(tree.where, words, tree.path) as terminal:
        terminal.type(b"tty; stty size\r")
        terminal.read_until(b"/dev/pts/0\r\n33 77\r\n")
        terminal.type(b"sh -c 'echo o''n; exec sleep 100'\r")  # what is typed is echoed, and is not "on"
        terminal.read_until(b"on\r\n")
        terminal.type(b"\x03")
        terminal.read_until(b"^C")
        terminal.resize(12, 99)
        terminal.type(b"stty size\r")
        terminal.read_until(b"12 99\r\n")
        terminal.type(b"echo kept >kept.txt; exit 7\r")
        code, text = terminal.finish()
    assert code == 7 and (tree.path / "kept.txt").read_text() == "kept\n", (code, text)


def check_lists(whole: Cluster, top: Tree, busy: set[str]) -> None:
    """Compare what lists masters and stores with the master, and with the disks of the workers.

    `busy` are the workers on which jobs have just run.
    """
    (listed,) = [one for one in json.loads(top.ctl("ls", "-json").stdout) if one["tree"] == str(top.path)]
    status = top.status()
    assert (listed["pid"], listed["jobs"]["remote"]) == (status["pid"], status["jobs"]["remote"])
    own = {store["store"]: store for store in json.loads(top.ctl("cache", "-json").stdout)}
    assert own["digests"]["is_in_use"] and own["digests"]["size_bytes"] > 0
    for number, worker in enumerate(whole.workers, 1):
        place = worker.where.base / f"cache-w{number}"

        def stores(where: Place = worker.where, place: Path = place) -> list[dict[str, Any]]:
            words = [where.termite("termite-ctl"), "cache", "-cachedir", str(place), "-json"]
            shown: list[dict[str, Any]] = json.loads(where.run(words, where.base).stdout)
            return [one for one in shown if one["store"] == "contents"]

        def is_true(place: Path = place, is_busy: bool = f"w{number}" in busy) -> bool:
            shown, there = stores(), [path for path in place.glob("**/cas/**/*") if not path.is_dir()]
            is_in_use = any(one["is_in_use"] for one in shown) and len(there) > 0
            return sum(one["files"] for one in shown) == len(there) and (is_in_use or not is_busy)

        wait_until(is_true, f"the stores of w{number} are those on its disk", lambda: str(stores()))


def stamps(tree: Tree, name: str) -> list[float]:
    return [float((tree.path / f"{name}.{end}").read_text()) for end in ("begin", "end")]


@pytest.mark.timeout(400)
def test_a_worker_without_tmpfs_builds_on_the_disk_that_the_project_is_on(
    make_place: MakePlace, source: Callable[[str], Path]
) -> None:
    """Linux before 6.6 keeps scratch on disk: overlays, cache and results share one file system."""
    with make_place("ordinary") as where:
        tree = new_tree(where)
        with cluster(tree, []) as whole:
            whole.add_worker(where, "disk", "-jobs", "4", "-scratch", "disk", "-tmpdir", str(where.base))
            whole.wait_for_workers(1)
            near, far = build(tree, copied(source("lua5.4"), where), PROJECTS["lua5.4"])
            assert [path for path in near.keys() | far.keys() if near.get(path) != far.get(path)] == []
            jobs = tree.status()["jobs"]
            assert (jobs["retried"], jobs["remote"] > 30) == (0, True), jobs


def test_a_worker_whose_own_usr_has_no_compiler_compiles(make_place: MakePlace) -> None:
    with make_place("ordinary", network=True) as home, make_place("bare", network=True) as bare:
        assert_bare(bare)
        tree = new_tree(home)
        with bridged([home, bare]) as addresses, cluster(tree, [bare], host=addresses[0]) as whole:
            tree.write("a.c", '#include <stdio.h>\nint main(void){puts("made");return 0;}\n')
            tree.write("Makefile", "all: prog\n\t./prog >out\nprog: a.o\n\tgcc -o $@ a.o\na.o: a.c\n\tgcc -c a.c\n")
            done = tree.make("-j2", env={"TERMITE_LOCAL": "never"})
            assert done.code == 0, (done, whole.workers[0].text())
            assert (tree.path / "out").read_text() == "made\n"
            assert tree.jobs() == 3
        assert_nothing_left(home, tree.path)


def assert_bare(where: Place) -> None:
    look = "import shutil; print([shutil.which(name) for name in ('gcc', 'cc', 'ld', 'sh', 'make')])"
    done = where.run([str(COMMANDS / "python"), "-c", look], "/")
    assert done.stdout == b"[None, None, None, None, None]\n", done


def test_nothing_is_left_on_any_host(make_place: MakePlace) -> None:
    with make_place("ordinary", network=True) as home, make_place("root", network=True) as rooted:
        tree = new_tree(home)
        with bridged([home, rooted]) as addresses, cluster(tree, [rooted], host=addresses[0]):
            assert tree.termite("sh", "-c", "echo x >made; echo y >/tmp/y; rm /tmp/y").code == 0
        assert_nothing_left(home, tree.path)
        assert_nothing_left(rooted)
