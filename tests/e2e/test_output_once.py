"""A command whose worker is lost runs again, and its readers get its output once or an error."""

import contextlib
import itertools
import os
import pty
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, cluster, new_tree, processes_running
from tests.e2e.conftest import MakePlace, in_turn
from tests.e2e.waiting import wait_until

NAP = b"sleep\0002345.6"  # what the first run of a job waits with, as /proc shows it
SHOWN_S = 1.5  # after so long the first output is shown
END_S = 60


@pytest.fixture
def whole(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Cluster]:
    """Yield the cluster of an ordinary user, or of the user that the test names."""
    with (
        make_place(getattr(request, "param", "ordinary")) as where,
        cluster(new_tree(where), [where, where]) as running,
    ):
        yield running


def napping(first: str, again: str) -> str:
    """Return a script that prints `first` and sleeps, or prints `again` if such a file exists."""
    return f"echo line >>log; if test -e again; then {again}; else {first}; sleep 2345.6; fi"


@contextlib.contextmanager
def begun(whole: Cluster, *argv: str, terminal: int | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a command whose job naps."""
    tree = whole.tree
    words = [tree.where.termite(argv[0]), *argv[1:]]
    if terminal is None:
        process = tree.where.start(words, tree.path)
    else:
        process = tree.where.start(words, tree.path, stdin=terminal, stdout=terminal, stderr=terminal)
    try:
        wait_until(lambda: bool(processes_running(NAP)), "the job runs", whole.master.text)
        tree.write("again", "")
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


def kill_workers(whole: Cluster, how: str) -> None:
    """Kill all workers, or the master, or only the worker that runs the job."""
    if how == "master":
        whole.master.process.kill()
    else:
        workers = whole.workers if how == "all" else [w for w in whole.workers if is_above_the_nap(w.process.pid)]
        for worker in workers:
            worker.process.kill()


def is_above_the_nap(pid: int) -> bool:
    for nap in processes_running(NAP):
        while nap > 1 and nap != pid:
            status = Path(f"/proc/{nap}/status").read_text()
            nap = int(re.findall(r"^PPid:\t(\d+)$", status, re.MULTILINE)[0])
        if nap == pid:
            return True
    return False


KILLED = pytest.mark.parametrize("how", ["one", "all", "master"])


@in_turn("whole", "how, wait_s", *itertools.product(("one", "all", "master"), (SHOWN_S, 0.0)))
def test_a_shell_function_of_make_gets_the_output_once(whole: Cluster, how: str, wait_s: float) -> None:
    tree = whole.tree
    tree.write("twice.sh", napping("echo v1", "echo v1; echo v2"))
    tree.write("Makefile", 'X := $(shell sh twice.sh)\nall:\n\t@echo "X is $(X)"\n')
    with begun(whole, "termite-make") as make:
        time.sleep(wait_s)
        kill_workers(whole, how)
        stdout, stderr = make.communicate(timeout=END_S)
    assert (make.returncode, stdout) == (0, b"X is v1 v2\n"), stderr
    assert (tree.path / "log").read_text() == "line\n"


@KILLED
def test_output_that_was_only_held_is_forgotten(whole: Cluster, how: str) -> None:
    with begun(whole, "termite", "sh", "-c", napping("echo first", "echo second; exit 3")) as process:
        kill_workers(whole, how)
        assert process.communicate(timeout=END_S)[0] == b"second\n"
    assert process.returncode == 3
    assert (whole.tree.path / "log").read_text() == "line\n"


@KILLED
def test_other_output_after_some_was_shown_fails_the_command(whole: Cluster, how: str) -> None:
    with begun(whole, "termite", "sh", "-c", napping("echo first", "echo second")) as process:
        time.sleep(SHOWN_S)
        kill_workers(whole, how)
        stdout, stderr = process.communicate(timeout=END_S)
    assert (process.returncode, stdout) == (101, b"first\n"), stderr
    assert b"printed something else" in stderr


def test_a_compiler_that_ninja_runs_is_heard_once_at_its_end(whole: Cluster) -> None:
    tree = whole.tree
    tree.write("job.sh", napping("echo first", "echo second; echo made >out"))
    tree.write("build.ninja", "rule job\n  command = sh job.sh\nbuild out: job\n")
    with begun(whole, "termite-ninja") as ninja:
        time.sleep(SHOWN_S)
        kill_workers(whole, "all")
        stdout, stderr = ninja.communicate(timeout=END_S)
    assert ninja.returncode == 0, stderr
    assert b"second\n" in stdout and b"first\n" not in stdout, stdout


def test_a_job_of_make_with_output_sync_is_heard_once_at_its_end(whole: Cluster) -> None:
    tree = whole.tree
    tree.write("job.sh", napping("echo first", "echo second"))
    tree.write("Makefile", "all:\n\t@sh job.sh\n")
    with begun(whole, "termite-make", "-O", "-j2") as make:
        time.sleep(SHOWN_S)
        kill_workers(whole, "one")
        stdout, stderr = make.communicate(timeout=END_S)
    assert (make.returncode, stdout) == (0, b"second\n"), stderr


def test_output_of_a_long_job_appears_within_a_second_and_then_as_it_comes(whole: Cluster) -> None:
    tree = whole.tree
    tree.termite("true")  # the lease is there
    script = "for i in 1 2 3 4 5 6 7 8; do date +%s.%N; sleep 0.3; done"
    process = tree.where.start([tree.where.termite("termite"), "sh", "-c", script], tree.path)
    assert process.stdout
    late_s = [time.time() - float(line) for line in process.stdout]
    process.communicate(timeout=END_S)
    assert process.returncode == 0 and len(late_s) == 8
    assert 0.5 < late_s[0] < 1.6, late_s
    assert max(late_s[5:]) < 0.5, late_s


def test_a_terminal_shows_output_at_once(whole: Cluster) -> None:
    tree = whole.tree
    tree.termite("true")
    leader, follower = pty.openpty()
    argv = [tree.where.termite("termite"), "sh", "-c", "date +%s.%N; sleep 3"]
    process = tree.where.start(argv, tree.path, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(leader, 100)
    late_s = time.time() - float(line)
    assert process.wait(END_S) == 0
    os.close(leader)
    assert late_s < 0.5


@pytest.mark.parametrize("how", ["one", "all"])
def test_on_a_terminal_a_second_run_on_a_worker_repeats_nothing_and_one_here_follows(whole: Cluster, how: str) -> None:
    leader, follower = pty.openpty()
    argv = ("termite", "sh", "-c", napping("echo v1", "echo v1; echo v2"))
    with begun(whole, *argv, terminal=follower) as process:
        os.close(follower)
        text = b""
        while b"v1" not in text:
            text += os.read(leader, 4096)
        kill_workers(whole, how)
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(leader, 4096):
                text += piece
        assert process.wait(END_S) == 0
    os.close(leader)
    lines = [line for line in text.split(b"\r\n") if not line.startswith(b"termite: ")]
    assert lines == ([b"v1", b"v2", b""] if how == "one" else [b"v1", b"v1", b"v2", b""]), text
    assert (b"the output above is of its first run" in text) == (how == "all")
    assert (whole.tree.path / "log").read_text() == "line\n"


# Commands that may not run twice, each with its input and the words that the tree then holds.
ONCE = {
    ">>": ("echo x >>{d}/log", "log: x"),
    "mv": ("mv {d}/a {d}/b", "b/f: f"),
    "mkdir": ("mkdir {d}/made", ""),
    "ln -s": ("ln -s a {d}/link", ""),
    "ar q": ("ar q {d}/x.a {d}/a/f 2>/dev/null; ar t {d}/x.a >{d}/list", "list: f"),
    "patch": ("printf '1c1\\n< f\\n---\\n> g\\n' | patch -s {d}/a/f", "a/f: g"),
    "counter": ("n=$(cat {d}/n); echo $((n+1)) >{d}/n", "n: 2"),
}


@in_turn("whole", "output", "silent", "held", "shown", "shown")
def test_commands_that_may_not_run_twice_do_not(whole: Cluster, output: str) -> None:
    tree = whole.tree
    commands = []
    for number, (command, _) in enumerate(ONCE.values()):
        tree.mkdir(f"{number}/a")
        tree.write(f"{number}/a/f", "f\n")
        tree.write(f"{number}/n", "1\n")
        commands.append(command.format(d=number))
    prints = ":" if output == "silent" else "echo v1"
    script = f"{prints}; " + " && ".join(commands) + " || exit 9; test -e again || sleep 2345.6; echo end"
    with begun(whole, "termite", "sh", "-c", script) as process:
        time.sleep(SHOWN_S if output == "shown" else 0.0)
        kill_workers(whole, "all")
        stdout, stderr = process.communicate(timeout=END_S)
    assert process.returncode == 0, stderr
    assert stdout == (b"end\n" if output == "silent" else b"v1\nend\n")
    for number, (_, expected) in enumerate(ONCE.values()):
        if expected:
            name, content = expected.split(": ")
            assert (tree.path / str(number) / name).read_text() == f"{content}\n"
    assert (tree.path / "2/made").is_dir() and not (tree.path / "1/b/a").exists()
    assert os.readlink(tree.path / "3/link") == "a"
