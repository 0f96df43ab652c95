"""The master remembers the surroundings of some jobs, and each environment once."""

import pytest

from termite.engine.decide.environment import Environment
from termite.engine.launch.invocation import Inheritance
from termite.engine.master.worker_shell.job_surroundings import ENTRY_BYTES, JobSurroundings, Surroundings


def surroundings(**env: str) -> Surroundings:
    return Surroundings("/p", Environment(env), 0o22, Inheritance())


def test_equal_environments_are_kept_once_and_live_as_long_as_their_last_job() -> None:
    remembered = JobSurroundings(kept_jobs=3)
    for number in range(1, 4):
        remembered.add(number, surroundings(A="1", B="2"))
    assert remembered.statistics() == {"jobs": 3, "environments": 1, "bytes": 2 * (2 + ENTRY_BYTES)}
    first, second = (remembered.find(number) for number in (1, 2))
    assert first is not None and second is not None and first.env is second.env
    for number in range(4, 7):
        assert remembered.statistics()["environments"] == (1 if number == 4 else 2)
        remembered.add(number, surroundings(A="other"))
    assert remembered.statistics() == {"jobs": 3, "environments": 1, "bytes": 6 + ENTRY_BYTES}
    assert remembered.numbers == (4, 6) and remembered.find(3) is None


def test_an_environment_that_comes_again_is_kept_again() -> None:
    remembered = JobSurroundings(kept_jobs=1)
    again = surroundings(A="1").env
    for number in range(1, 9):
        remembered.add(number, Surroundings("/p", again if number % 2 else Environment({"B": "2"}), 0, Inheritance()))
        found = remembered.find(number)
        assert found is not None and dict(found.env) == ({"A": "1"} if number % 2 else {"B": "2"})
        assert remembered.statistics()["environments"] == 1


@pytest.mark.parametrize("size", [1000, 100_000])
def test_large_environments_push_old_jobs_out(size: int) -> None:
    remembered = JobSurroundings(kept_bytes=10_000)
    for number in range(1, 101):
        remembered.add(number, surroundings(A=f"{number:0{size}}"))
        assert remembered.statistics()["bytes"] <= max(10_000, size + 1 + ENTRY_BYTES)
    assert remembered.find(100) is not None and remembered.find(50) is None


def test_the_last_worker_of_a_job_is_noted() -> None:
    remembered = JobSurroundings()
    assert remembered.numbers is None
    remembered.add(7, surroundings())
    for job, worker in ((7, "one"), (7, "two"), (8, "three")):
        remembered.note_worker(job, worker)
    found = remembered.find(7)
    assert found is not None and found.worker == "two"
