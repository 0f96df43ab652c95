"""A command that asks about its machine gets the answers of the user's machine.

setarch(8) and taskset(1) give a worker on this machine another architecture or number of
processors: the kernel really answers its jobs so. Only another kernel is a claim of the worker.
"""

import dataclasses
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from termite.engine.errors import Reason
from tests.e2e.cluster import Cluster, cluster, new_tree
from tests.e2e.conftest import USERS, MakePlace
from tests.e2e.places import CHECKOUT, Place

OTHER_KERNEL = (sys.executable, str(CHECKOUT / "tests" / "e2e" / "other_kernel.py"))
TIED = Reason.OTHER_MACHINE
needs_setarch = pytest.mark.skipif(not shutil.which("setarch"), reason="setarch is not installed (util-linux)")
needs_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a machine with one processor")
needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="setarch i686 is for x86_64")


def like(where: Place, *words: str) -> Place:
    """Return the place with a program in front of every other one there."""
    return dataclasses.replace(where, become=(*where.become, *words))


@contextmanager
def one_worker(make_place: MakePlace, *words: str, user: str = "ordinary") -> Iterator[Cluster]:
    with make_place(user) as where, cluster(new_tree(where), [like(where, *words)]) as whole:
        yield whole


def tied(whole: Cluster) -> int:
    return int(whole.tree.status()["tied"].get(TIED, 0))


def runs_here(whole: Cluster, *argv: str) -> None:
    """Check that a command runs here, with the result of a plain run."""
    before, jobs = tied(whole), whole.tree.jobs()
    plain = whole.tree.plain(*argv)
    assert plain.code == 0, plain
    assert whole.tree.termite(*argv) == plain
    assert (tied(whole), whole.tree.jobs()) == (before + 1, jobs), argv
    assert whole.tree.termite(*argv, env={"TERMITE_LOCAL": "never"}) == plain, "it is tied to this machine"


def runs_there(whole: Cluster, *argv: str) -> None:
    before, jobs = tied(whole), whole.tree.jobs()
    plain = whole.tree.plain(*argv)
    assert whole.tree.termite(*argv) == plain
    assert (tied(whole), whole.tree.jobs()) == (before, jobs + 1), argv


def script_runs_here(whole: Cluster, script: str, reason: Reason) -> None:
    """Check that a script which asks inside runs here: after a try, and then at once."""
    name = script.split()[-1]  # a command that has run here does so again, whatever its script says now
    whole.tree.write(name, script)
    plain = whole.tree.plain("sh", name)
    before = whole.tree.status()
    done = whole.tree.termite("sh", name)
    assert (done.code, done.stdout) == (plain.code, plain.stdout), done
    assert reason.words.encode() in done.stderr
    after = whole.tree.status()
    assert after["fallbacks"].get(reason, 0) == before["fallbacks"].get(reason, 0) + 1
    assert whole.tree.termite("sh", name) == plain
    assert whole.tree.status()["tied"].get(reason, 0) == after["tied"].get(reason, 0) + 1


@pytest.mark.parametrize("user", USERS)
def test_another_kernel(make_place: MakePlace, user: str) -> None:
    with one_worker(make_place, *OTHER_KERNEL, user=user) as whole:
        script_runs_here(whole, "uname -r >out; cat out # kernel", TIED)
        script_runs_here(whole, "lsattr -d . # flags", Reason.ATTRIBUTES_SET)
        whole.tree.write("asks", "nproc")
        runs_there(whole, "sh", "asks")
        runs_here(whole, "uname", "-r")
        runs_here(whole, "sh", "-c", "echo $(/usr/bin/uname -r)")
        runs_here(whole, "cat", "/proc/version")
        whole.tree.write("a.c", "int a;")
        runs_there(whole, "gcc", "-march=native", "-c", "a.c", "-o", "a.o")
        runs_there(whole, "nproc")
        runs_there(whole, "echo", "arch/x86/uname.c", "--nprocessors")


@needs_cores
def test_another_number_of_processors(make_place: MakePlace) -> None:
    with one_worker(make_place, "taskset", "-c", str(min(os.sched_getaffinity(0)))) as whole:
        runs_here(whole, "nproc")
        runs_here(whole, "sh", "-c", "getconf _NPROCESSORS_ONLN")
        runs_there(whole, "uname", "-a")
        alone = whole.tree.plain(
            "taskset", "-c", str(max(os.sched_getaffinity(0))), whole.tree.where.termite("termite"), "nproc"
        )
        assert alone.stdout == b"1\n", "the command's own processors count"


@needs_setarch
@needs_x86
def test_another_architecture_is_not_leased_and_that_is_said_once(make_place: MakePlace) -> None:
    with make_place("ordinary") as where, cluster(new_tree(where), [where]) as whole:
        whole.add_worker(like(where, "setarch", "i686"), "strange")
        whole.master.wait_for("worker-foreign")
        whole.tree.write("Makefile", "all: a b c\na b c: ; @echo $@ >$@\n")
        line = b"termite: started without worker strange: its machine is i686, this one is x86_64\n"
        done = whole.tree.make("-s", "-j3")
        assert (done.code, done.stderr) == (0, line), done
        assert whole.tree.make("-s", "-B", "-j3").stderr == b""
        assert whole.jobs_by_worker() == {"w1": 6}
        assert whole.master.text().count("worker-foreign") == 1
        assert whole.tree.status()["known_workers"] == ["w1"]


@needs_setarch
@needs_x86
def test_the_reason_is_named_if_there_is_no_other_worker(make_place: MakePlace) -> None:
    with make_place("ordinary") as where, cluster(new_tree(where), []) as whole:
        whole.add_worker(like(where, "setarch", "i686"), "strange")
        whole.master.wait_for("worker-foreign")
        done = whole.tree.termite("echo", "here")
        assert done.stdout == b"here\n"
        assert b"its machine is i686" in done.stderr, done


def test_of_two_workers_the_one_that_is_alike_is_asked(make_place: MakePlace) -> None:
    with make_place("ordinary") as where, cluster(new_tree(where), [where]) as whole:
        whole.add_worker(like(where, *OTHER_KERNEL), "other")
        whole.wait_for_workers(2)
        plain = whole.tree.plain("uname", "-r")
        for _ in range(6):
            assert whole.tree.termite("uname", "-r") == plain
        assert (whole.jobs_by_worker()["w1"], tied(whole)) == (6, 0)
