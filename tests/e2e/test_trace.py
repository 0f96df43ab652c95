"""A master that traces jobs: their records say so, and a job that its trace disturbs runs again."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.engine.fleet.logic.learnt_names import LearntNames
from termite.engine.host import preflight
from termite.engine.host.native_programs import native_program
from termite.engine.model import TraceGap, TraceMode
from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.conftest import USERS, MakePlace
from tests.e2e.mirror_places import NOBODY, mirror_place
from tests.e2e.mirrors import FakeMaster, Starter, mirror

NATIVE_TESTS = Path(__file__).parents[1] / "native"
MAKEFILE = """
all: a.o b.o disturbed
%.o: %.c
	gcc -c $< -o $@
disturbed:
	./traps signals
"""


def compiled(source: str, to: Path) -> None:
    flags = ["-D_GNU_SOURCE", "-O1", "-static", "-no-pie", "-pthread"]
    subprocess.run(["gcc", *flags, NATIVE_TESTS / source, "-o", to], check=True)


@pytest.fixture(scope="module", params=USERS)
def traced(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Tree]:
    with make_place(request.param) as where, embedded(new_tree(where), env={"TERMITE_TRACE": "exact"}) as tree:
        yield tree


def records_of(tree: Tree) -> dict[str, dict[str, object]]:
    """Return the records of the last build's jobs by their texts."""
    listed = tree.ctl("jobs", "--json")
    assert listed.code == 0, listed
    return {job["text"]: job for job in map(json.loads, listed.stdout.splitlines())}


def test_records_say_what_was_traced(traced: Tree) -> None:
    compiled("trace_traps.c", traced.path / "traps")
    for name in ("a.c", "b.c"):
        traced.write(name, f'#include <stdio.h>\nint {name[0]}(void) {{ return puts(""); }}\n')
    traced.write("Makefile", MAKEFILE)
    built = traced.make("-j1")
    assert (built.code, built.stderr.partition(b"; ")[2]) == (0, b"run again on the same worker: 1\n"), built
    jobs = records_of(traced)
    for name in ("a", "b"):
        job = jobs[f"gcc -c {name}.c -o {name}.o"]
        assert (job["where"], job["trace_gaps"]) == ("worker", [])
        assert 100 < int(str(job["trace_paths"])) < int(str(job["trace_calls"]))
    assert traced.status()["workers"][0]["cannot_trace"] is False
    assert [b"trace"] not in [line.split()[:1] for line in traced.ctl("status").stdout.splitlines()]
    disturbed = jobs["./traps signals"]
    assert built.stdout.splitlines()[-1] == b"0", "no call of the second run was ended by a signal"
    assert (disturbed["exit_code"], disturbed["trace_calls"], disturbed["where"]) == (0, 0, "worker")
    assert [attempt["reason"] for attempt in disturbed["attempts"]] == ["trace-disturbed"]  # type: ignore[attr-defined]
    assert traced.status()["retries"] == {"trace-disturbed": 1}


@pytest.fixture
def place() -> Iterator[Path]:
    with mirror_place() as path:
        yield path


USER = NOBODY if os.geteuid() == 0 else None


async def test_traced_jobs_are_on_the_loopback_of_the_others(place: Path) -> None:
    if preflight.socket_guard(native_program("termite-sandbox")) != "landlock":
        pytest.skip("each job has a network namespace of its own")
    master = FakeMaster(place / "project")
    async with mirror(master, place, Starter(user=USER)):
        told = [await master.said("readlink", "/proc/self/ns/net", trace=mode) for mode in TraceMode]
    assert len(set(told)) == 1


async def test_a_name_travels_once_in_a_lease(place: Path) -> None:
    master, learnt = FakeMaster(place / "project"), LearntNames()
    async with mirror(master, place, Starter(user=USER)):
        brought = []
        for _ in range(2):
            ran = await master.run("ls", "/usr", trace=TraceMode.EXACT, names_known=len(learnt))
            assert ran.trace is not None and ran.trace.count > 5
            learnt.learn(ran.trace)
            brought.append(len(ran.trace.names))
    assert brought[0] > 0 == brought[1]


async def test_where_no_job_can_be_traced_jobs_run_all_the_same(place: Path) -> None:
    """The worker runs below another listener, as in a container that watches its system calls."""
    compiled("watched_calls.c", place / "watched_calls")
    master = FakeMaster(place / "project")
    starter = Starter(user=USER, through=(str(place / "watched_calls"), "below-listener"))
    async with mirror(master, place, starter):
        for _ in range(2):
            ran = await master.run("true", trace=TraceMode.EXACT)
            assert ran.exit.code == 0
            assert ran.trace is not None and TraceGap(ran.trace.gaps) == TraceGap.IMPOSSIBLE
