"""If any process of termite stands still, Ctrl-C ends the build, and no job waits for ever."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from termite.engine.host.process_state import children_of
from tests.e2e.cluster import Cluster, Tree, ancestors, cluster, embedded, new_tree, processes_running
from tests.e2e.conftest import USERS, MakePlace
from tests.e2e.waiting import wait_until

NAP = b"sleep\0004321.5"  # what a job of these tests waits with, as /proc shows it
OTHER_NAP = b"sleep\0004321.75"  # of a job that runs beside the tests
LIMIT_S = 5.0  # from Ctrl-C to the end; what it takes is printed
NAPPING = "all:\n\t@sleep 4321.5; true\n"
KINDS = ("master", "worker", "enter", "mirror", "serve", "pid1", "command")


@pytest.fixture(scope="module", params=USERS)
def whole(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Cluster]:
    with make_place(request.param) as where, cluster(new_tree(where), [where, where]) as running:
        yield running


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Stop processes for the length of the block."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            resume(pid)


def resume(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def words_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def processes_of_the_job(nap: bytes = NAP) -> dict[str, int]:
    """Return the processes of termite around the one job that naps, by kind."""
    chain = ancestors(processes_running(nap)[0])
    serving = [pid for pid in chain if words_of(pid).startswith(b"termite-sandbox\0serve")]
    enter = next(pid for pid in chain if b"termite-sandbox\0enter" in words_of(pid))
    at = chain.index(enter)
    found = {"command": chain[0], "pid1": serving[0], "serve": serving[1], "mirror": chain[at - 1], "enter": enter}
    return found | {"worker": chain[at + 1]}


def process_of_kind(whole: Cluster, kind: str) -> int:
    match kind:
        case "master":
            return whole.master.process.pid
        case "coordinator":
            return whole.coordinator.process.pid
        case "waiting":
            return waiting_sandbox()
    return processes_of_the_job()[kind]


def waiting_sandbox() -> int:
    """Return a sandbox without a job, of the mirror whose job naps."""
    found = processes_of_the_job()

    def waiting() -> list[int]:
        return [pid for pid in children_of(found["serve"]) if pid != found["pid1"] and not children_of(pid)]

    wait_until(lambda: bool(waiting()), "a sandbox waits for a job")
    return waiting()[0]


@contextmanager
def napping(tree: Tree, *program: str, nap: bytes = NAP) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program whose job naps, and yield when it does."""
    process = tree.where.start([tree.where.termite(program[0]), *program[1:]], tree.path)
    try:
        wait_until(lambda: bool(processes_running(nap)), "the job runs")
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not processes_running(nap), "the job is gone")


@dataclass(frozen=True, slots=True)
class FrozenWorker:
    """A cluster of which a worker is frozen with its mirror, in the middle of a job.

    `ended` is how the job's launcher ends: its stdout, its stderr, and after how many seconds.
    """

    whole: Cluster
    process: "subprocess.Popen[bytes]"
    ended: "Future[tuple[bytes, bytes, float]]"


@pytest.fixture(scope="module", autouse=True)
def frozen_worker(make_place: MakePlace) -> Iterator[FrozenWorker]:
    """Freeze a worker when this file begins: other tests run during the half minute of silence.

    The job naps the first time only: a file in the tree tells the second run.
    """
    job = ("sh", "-c", f"if test -e again; then echo done; else {OTHER_NAP.replace(bytes(1), b' ').decode()}; fi")
    with (
        make_place("ordinary") as where,
        cluster(new_tree(where), [where, where]) as running,
        ThreadPoolExecutor(1) as pool,
        napping(running.tree, "termite", *job, nap=OTHER_NAP) as process,
    ):
        found = processes_of_the_job(OTHER_NAP)
        running.tree.write("again", "")
        with frozen(found["worker"], found["mirror"]):
            start = time.monotonic()
            ended = pool.submit(lambda: (*process.communicate(timeout=60), time.monotonic() - start))
            yield FrozenWorker(running, process, ended)


def end_of(process: "subprocess.Popen[bytes]", what: str, number: int) -> tuple[int, bytes]:
    """Send a signal to the group of the process, as a terminal does. Return how it ends."""
    start = time.monotonic()
    os.killpg(process.pid, number)
    try:
        _, stderr = process.communicate(timeout=LIMIT_S + 30)
    finally:
        took_s = time.monotonic() - start
        print(f"{signal.Signals(number).name}, {what} is stopped: {took_s:.2f} s")
    assert took_s < LIMIT_S, stderr
    return process.returncode, stderr


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


# Only the master has a part in the end of a launcher, so it is frozen for the other signals.
IDLE = ("waiting", "coordinator")  # they have no part in the job that runs
SIGNALS = [(kind, signal.SIGINT) for kind in (*KINDS, *IDLE)] + [("master", signal.SIGTERM), ("master", signal.SIGHUP)]


@pytest.mark.parametrize(("kind", "number"), SIGNALS, ids=lambda value: getattr(value, "name", value))
def test_a_signal_ends_a_make_whatever_is_frozen(whole: Cluster, kind: str, number: signal.Signals) -> None:
    tree = whole.tree
    tree.write("Makefile", NAPPING)
    with napping(tree, "termite-make") as process, frozen(process_of_kind(whole, kind)):
        code, stderr = end_of(process, f"the {kind}", number)
    assert code in (2, -number), stderr


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_ends_a_launcher_whatever_is_frozen(whole: Cluster, kind: str) -> None:
    job = ("sh", "-c", "sleep 4321.5; true")
    with napping(whole.tree, "termite", *job) as process, frozen(process_of_kind(whole, kind)):
        code, stderr = end_of(process, f"the {kind}", signal.SIGINT)
    assert code == -signal.SIGINT, stderr


NAPPING_NINJA = "rule nap\n  command = sleep 4321.5; true\nbuild x: nap\n"
NAPPING_CMAKE = (
    "cmake_minimum_required(VERSION 3.10)\nproject(x NONE)\n"
    'add_custom_target(x ALL COMMAND sh -c "sleep 4321.5; true" VERBATIM)\n'
)


@pytest.mark.parametrize("whole", USERS[:1], indirect=True)
@pytest.mark.parametrize("program", ["termite-ninja", "termite-cmake"])
def test_ctrl_c_ends_a_build_of_another_front_end(whole: Cluster, program: str) -> None:
    tree, words = whole.tree.subtree(program), [program]
    if program == "termite-ninja":
        tree.write("build.ninja", NAPPING_NINJA)
    else:
        tree.write("CMakeLists.txt", NAPPING_CMAKE)
        assert tree.plain("cmake", "-B", "out").code == 0
        words += ["--build", "out"]
    with napping(tree, *words) as process, frozen(whole.master.process.pid):
        code, stderr = end_of(process, f"{program}, the master", signal.SIGINT)
    assert code in (1, 2, -signal.SIGINT, 128 + signal.SIGINT), stderr


MANY = 20_000
MANY_LIMIT_S = 2.0


@pytest.mark.parametrize("whole", USERS[:1], indirect=True)
def test_ctrl_c_ends_a_build_while_many_files_come_home(whole: Cluster) -> None:
    """The job has happened by then, so the master writes the rest."""
    tree = whole.tree.subtree("many")
    tree.write("Makefile", f"all:\n\t@mkdir d && cd d && seq {MANY} | xargs touch\n")
    process = tree.where.start([tree.where.termite("termite-make")], tree.path)
    wait_until((tree.path / "d" / "1").exists, "the first file is at home", whole.master.text)
    began_s = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=LIMIT_S + 30)
    took_s = time.monotonic() - began_s
    print(f"SIGINT while {MANY} files come home: {took_s:.2f} s, {len(os.listdir(tree.path / 'd'))} are there")
    assert process.returncode in (2, -signal.SIGINT) and took_s < MANY_LIMIT_S, stderr
    wait_until(lambda: len(os.listdir(tree.path / "d")) == MANY, "the master writes the rest", whole.master.text)


@pytest.mark.parametrize("user", USERS)
def test_ctrl_c_ends_a_build_of_a_frozen_embedded_master(user: str, make_place: MakePlace) -> None:
    with make_place(user) as where, embedded(new_tree(where)) as tree:
        tree.write("Makefile", NAPPING)
        with napping(tree, "termite-make") as process, frozen(processes_of_the_job()["worker"]):
            code, stderr = end_of(process, "the embedded master", signal.SIGINT)
        assert code in (2, -signal.SIGINT), stderr
        assert b"does not answer" in stderr


def test_ctrl_c_ends_the_wait_for_a_summary(whole: Cluster) -> None:
    """The master stops when the build is over, and termite-make asks it for the summary."""
    tree = whole.tree
    tree.write("Makefile", f"all:\n\t@kill -STOP {whole.master.process.pid}\n")
    tree.write(".termite-localrc", '[{"Regexp": "kill", "Local": true}]')
    process = tree.where.start([tree.where.termite("termite-make")], tree.path)
    try:
        wait_until(lambda: state(whole.master.process.pid) == "T", "the master is stopped")
        wait_until(lambda: not Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(), "make has ended")
        code, stderr = end_of(process, "the master", signal.SIGINT)
        assert code == 0, stderr
    finally:
        resume(whole.master.process.pid)
        (tree.path / ".termite-localrc").unlink()


@pytest.mark.parametrize("program", ["termite-make", "termite"])
def test_ctrl_c_ends_the_start_of_a_build(whole: Cluster, program: str) -> None:
    tree = whole.tree
    tree.write("Makefile", "all:\n\t@echo made\n")
    with frozen(whole.master.process.pid):
        process = tree.where.start(
            [tree.where.termite(program), *(["true"] if program == "termite" else [])], tree.path
        )
        wait_until(lambda: waits_for_the_master(process.pid), "it waits for the master")
        code, stderr = end_of(process, f"{program} begins, the master", signal.SIGINT)
    assert code == -signal.SIGINT, stderr


def waits_for_the_master(pid: int) -> bool:
    """Return whether a process sleeps until its socket has something to read."""
    return Path(f"/proc/{pid}/wchan").read_text() in (
        "unix_stream_read_generic",
        "unix_stream_data_wait",
        "poll_schedule_timeout.constprop.0",
        "do_sys_poll",
    )


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# -- jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pid1", "enter", "mirror"])
def test_what_somebody_has_stopped_on_a_worker_is_resumed_and_the_job_goes_on(whole: Cluster, kind: str) -> None:
    with napping(whole.tree, "termite", "sh", "-c", "sleep 4321.5; echo done") as process:
        retried = whole.tree.jobs("retried")
        pid, nap = process_of_kind(whole, kind), processes_running(NAP)[0]
        with frozen(pid):
            wait_until(lambda: state(pid) == "T", "it is stopped")
            wait_until(lambda: state(pid) != "T", "it was resumed")
        os.kill(nap, signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=10)
        assert (process.returncode, stdout) == (0, b"done\n"), stderr
        assert whole.tree.jobs("retried") == retried


def test_a_worker_that_is_frozen_whole_costs_a_retry_within_the_time_of_silence(frozen_worker: FrozenWorker) -> None:
    stdout, stderr, took_s = frozen_worker.ended.result()
    print(f"a frozen worker and mirror: retried after {took_s:.1f} s")
    assert (frozen_worker.process.returncode, stdout) == (0, b"done\n"), stderr
    assert 20 < took_s < 35
    assert frozen_worker.whole.tree.jobs("retried") == 1
