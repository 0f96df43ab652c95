"""Call sweeps: a call of a daemon or a launcher fails or is its last one, and the job happens once.

Here each call of a sample meets one fault. `make torture ARGS=--sweeps` hits all calls with all
faults.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from termite.engine.worker.worker_daemon import LEASE_REQUEST_S
from tests.e2e.cluster import Tree
from tests.e2e.conftest import needs_root
from tests.e2e.places import Outcome, Place
from tests.torture import sweeps
from tests.torture.__main__ import summary
from tests.torture.one_round import Result
from tests.torture.sweep_jobs import JOBS, SweepJob
from tests.torture.sweep_rig import verdict
from tests.torture.sweeps import Group, GroupResult, Plan, matching, run_groups, sweep_summary

# The users and the jobs that share daemons, and how many calls of each group are hit.
WARM = tuple(job for job in JOBS if job != "cold")
SAMPLE = [
    pytest.param("ordinary", WARM, 2, id="ordinary-warm"),
    pytest.param("ordinary", ("cold",), 1, id="ordinary-cold"),
    pytest.param("root", ("append",), 1, marks=needs_root, id="root-append"),
    pytest.param("root", ("cold",), 1, marks=needs_root, id="root-cold"),
]
SERIAL = "123456"
# Points that were wrong once: the user, the kind of job, the group and what happens at which call.
MENDED = [
    # The job waited for ever for an answer to a frame that was lost.
    ("ordinary", "stdin/master/launchers.write", (1, "ENOBUFS")),
    # The same, from the other side.
    ("ordinary", "stdin/launcher/send", (2, "ENOBUFS")),
]
# A mirror cannot ask for slots. The job must not wait for the worker's deadline.
NO_SLOTS = ("ordinary", "cold/mirror/wire.send", (1, "ENOBUFS"))

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize(("user", "jobs", "most"), SAMPLE)
def test_a_job_happens_once_whichever_call_fails(base: Path, user: str, jobs: tuple[str, ...], most: int) -> None:
    """Hit a sample of the calls of jobs, and then the points that were wrong once."""
    groups = [group for job in jobs for group in matching(f"{user}/{job}/")]
    # All jobs look alike; tests/edge/engine/tree/test_look_sweeps.py has one look of each line.
    sample = [(group, Plan(most=most)) for group in groups if group.calls != "looks." or group.job == "append"]
    wrong_once = [
        (group, Plan(only=point))
        for point_user, name, point in (*MENDED, NO_SLOTS)
        if point_user == user and name.partition("/")[0] in jobs
        for group in matching(f"{user}/{name}")
    ]
    results = list(run_groups(base, [*sample, *wrong_once]))
    print(sweep_summary(results))  # for somebody who runs this with -s
    assert not any(result.problems for result in results), "\n".join(result.line() for result in results)
    hit_some, hit_again = results[: len(sample)], results[len(sample) :]
    for job in jobs:
        of_job = [result for result in hit_some if result.group.job == job]
        missed = [result.line() for result in of_job if not result.points]
        assert len(missed) < len(of_job) / 4, missed  # the numbers of some calls depend on the moment
    assert all(result.points == 1 for result in hit_again), "\n".join(result.line() for result in hit_again)
    slow = [r.line() for r in hit_again if r.group.name == "/".join(NO_SLOTS[:2]) and r.seconds >= LEASE_REQUEST_S]
    assert not slow


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
    assert problems(after_one_run, err=b"termite: 1 command runs on this machine: the master went away\n") == []


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


def test_random_points_take_turns_and_come_again_with_their_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is a number of groups, and no daemon starts."""
    now = [0.0]

    def run(base: Path, key: tuple[str, bool], work: Iterable[tuple[Group, Plan]]) -> Iterator[GroupResult]:
        for group, plan in work:
            now[0] += 1
            assert plan.seed is not None and plan.most
            yield GroupResult(group, points=plan.most)

    monkeypatch.setattr(sweeps, "_run_on_one_rig", run)
    monkeypatch.setattr(sweeps, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def names(seed: int, end: float) -> list[str]:
        now[0] = 0.0
        return [result.group.name for result in sweeps.run_some(tmp_path, seed, end)]

    everything = {group.name for group in sweeps.all_groups()}
    assert set(names(1, 10.0 * len(everything))) == everything
    assert names(1, 70.0) == names(1, 70.0) != names(2, 70.0)
    users = {(name.split("/")[0], JOBS[name.split("/")[1]].is_cold) for name in names(1, 70.0)}
    assert len(users) == 2 * len(sweeps.KINDS), "everybody has a turn, however short the time is"


def test_the_summary_of_a_run_counts_rounds_and_points() -> None:
    swept = GroupResult(matching("ordinary/append/master/disk.")[0], builds=8, points=4, problems={"x": ["hang: y"]})
    assert (
        summary([Result("a", 1, builds=2, injected=["x"])], [swept])
        == "5 faults in 10 builds: 0 wrong, 1 hangs, 0 left"
    )
