"""Call sweeps: a call of a daemon or a launcher fails or is its last one, and the job happens once.

Here each call of a sample meets one fault. `make torture ARGS=--sweeps` hits all calls with all
faults.
"""

import os
from pathlib import Path

import pytest

from termite.engine.worker.worker_daemon import LEASE_REQUEST_S
from tests.e2e.cluster import Tree
from tests.e2e.conftest import needs_root
from tests.e2e.places import Outcome, Place
from tests.torture.sweep_jobs import JOBS, SweepJob
from tests.torture.sweep_rig import verdict
from tests.torture.sweeps import GroupResult, Plan, matching, run_groups, sweep_summary

# The users, the jobs, and how many calls of each group are hit.
SAMPLE = [
    *(pytest.param("ordinary", job, 1 if job == "cold" else 2) for job in JOBS),
    *(pytest.param("root", job, 1, marks=needs_root) for job in ("append", "cold")),
]
SERIAL = "123456"
# Points that were wrong once.
MENDED = [
    "stdin/master/launchers.write#1:ENOBUFS",  # the job waited for ever for an answer to a frame that was lost
    "stdin/launcher/send#2:ENOBUFS",  # the same, from the other side
]

pytestmark = pytest.mark.timeout(300)


def sweep(base: Path, pattern: str, plan: Plan) -> list[GroupResult]:
    results = list(run_groups(base, matching(pattern), plan))
    assert not any(result.problems for result in results), "\n".join(result.line() for result in results)
    return results


@pytest.mark.parametrize(("user", "job", "most"), SAMPLE)
def test_a_job_happens_once_whichever_call_fails(base: Path, user: str, job: str, most: int) -> None:
    results = sweep(base, f"{user}/{job}/", Plan(most=most))
    print(sweep_summary(results))  # for somebody who runs this with -s
    missed = [result.line() for result in results if not result.points]
    assert len(missed) < len(results) / 4, missed  # the numbers of some calls depend on the moment


@pytest.mark.parametrize("point", MENDED)
def test_a_point_that_was_mended(base: Path, point: str) -> None:
    name, _, fault = point.partition("#")
    number, _, what = fault.partition(":")
    (result,) = sweep(base, f"ordinary/{name}", Plan(only=(int(number), what)))
    assert result.points == 1


def test_a_mirror_that_cannot_ask_for_slots_does_not_let_the_job_wait_for_the_workers_deadline(base: Path) -> None:
    (result,) = sweep(base, "ordinary/cold/mirror/wire.send", Plan(only=(1, "ENOBUFS")))
    assert result.points == 1 and result.seconds < LEASE_REQUEST_S


# -- the sweep itself -------------------------------------------------------------------------------------------------


@pytest.fixture
def after_one_run(tmp_path: Path) -> Path:
    """Return a tree as the job `append` leaves it."""
    tree = Tree(Place((), (), os.geteuid(), tmp_path, {}), tmp_path)
    JOB.fill(tree, SERIAL)
    assert tree.plain("sh", "-c", JOB.script).code == 0
    return tmp_path


JOB: SweepJob = JOBS["append"]
OUTPUT = JOB.stdout(SERIAL)


def problems(tree: Path, code: int = 0, out: bytes = OUTPUT, err: bytes = b"") -> list[str]:
    return list(verdict(JOB, SERIAL, tree, Outcome(code, out, err)))


def test_one_run_is_right(after_one_run: Path) -> None:
    assert problems(after_one_run) == []
    assert problems(after_one_run, err=b"termite: the master went away; running the command on this machine\n") == []


@pytest.mark.parametrize("name", ["log", "counter"])
def test_a_second_run_is_wrong_even_if_the_user_was_told_that_the_job_was_lost(after_one_run: Path, name: str) -> None:
    (after_one_run / name).write_text({"log": "x\nx\n", "counter": "3\n"}[name])
    assert problems(after_one_run) and problems(after_one_run, 101, b"", b"termite: lost\n")
    assert problems(after_one_run, -9, b"")


def test_a_run_that_left_nothing_is_wrong_unless_the_user_was_told(tmp_path: Path) -> None:
    assert problems(tmp_path)
    assert problems(tmp_path, 101, b"", b""), "nobody said why"
    assert problems(tmp_path, 101, b"", b"termite: lost\n") == []


@pytest.mark.parametrize(
    ("code", "out", "err"), [(1, OUTPUT, b""), (0, OUTPUT * 2, b""), (0, b"", b""), (0, OUTPUT, b"x")]
)
def test_another_code_or_output_is_wrong(after_one_run: Path, code: int, out: bytes, err: bytes) -> None:
    assert problems(after_one_run, code, out, err)


def test_the_summary_of_sweeps_counts_points() -> None:
    (group,) = matching("ordinary/append/master/disk.")
    results = [
        GroupResult(group, builds=4, points=2, problems={"a": ["wrong: 1", "wrong: 2"], "b": ["hang: 3", "left: 4"]}),
        GroupResult(group, builds=2, points=1),
    ]
    assert sweep_summary(results) == "3 faults in 6 builds: 1 wrong, 1 hangs, 1 left"
    assert "again: make torture ARGS='--sweeps a'" in results[0].line()
