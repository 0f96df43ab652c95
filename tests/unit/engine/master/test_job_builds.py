"""A job belongs to the build whose variable it has, or whose front end has started it."""

import time

import msgspec

from termite.engine.decide.environment import Environment
from termite.engine.master.recording.job_builds import QUIET_S, VARIABLE, JobBuilds, name_of
from tests.synthetic_builds import synthetic_build

PARENTS = {40: 30, 30: 20, 20: 1, 41: 31, 31: 1, 50: 50}
NO_ENV = Environment({})


def builds_after(*front_ends: str) -> JobBuilds:
    past = [
        msgspec.structs.replace(synthetic_build(number * 10, number).build, front_end=front_end)
        for number, front_end in enumerate(front_ends, 1)
    ]
    return JobBuilds(len(front_ends), past[::-1], lambda pid: PARENTS.get(pid, 0))


def test_the_variable_decides() -> None:
    builds = builds_after()
    one, other = builds.start("make", "make a", "/", 20), builds.start("make", "make b", "/", 31)
    for build in (one, other, one):
        assert builds.find(Environment({VARIABLE: name_of(build)}), 41) == (build, False)
    builds.end(other, 0, 0)
    assert builds.find(Environment({VARIABLE: name_of(other)}), 40) == (one, False), "its ancestor, then"


def test_without_it_the_ancestors_decide() -> None:
    builds = builds_after()
    one, other = builds.start("make", "make a", "/", 20), builds.start("ninja", "ninja", "/", 31)
    assert builds.find(NO_ENV, 40) == (one, False)
    assert builds.find(Environment({}), 41) == (other, False)
    assert builds.find(Environment({VARIABLE: "4711-1.0"}), 41) == (other, False), "the name of another master"
    unnamed, is_new = builds.find(NO_ENV, 50)  # a parent that is its own child ends the search, too
    assert is_new and unnamed.front_end == ""
    assert builds.find(NO_ENV, 60) == (unnamed, False)
    assert builds.running == [one, other, unnamed]


def test_the_commands_of_one_tool_cost_one_read_each() -> None:
    reads: list[int] = []

    def parent_of(pid: int) -> int:
        reads.append(pid)
        return {11: 10, 12: 10, 13: 10, 10: 9}.get(pid, 1)

    builds = JobBuilds(0, [], parent_of)
    build = builds.start("make", "make", "/", 9)
    assert [builds.find(NO_ENV, pid)[0] for pid in (11, 12, 13)] == [build] * 3
    assert reads == [11, 10, 12, 13]
    nearer = builds.start("make", "make -C below", "/", 10)
    assert builds.find(NO_ENV, 13) == (nearer, False), "what was known is of other builds"


def test_a_build_without_a_front_end_ends_when_nothing_comes() -> None:
    builds = builds_after()
    build, _ = builds.find(NO_ENV, 1)
    build.begun = 1
    now_s = time.time()
    assert builds.quiet_build(now_s, now_s + 2 * QUIET_S) is None, "its job runs"
    build.tally.jobs = 1
    assert builds.quiet_build(now_s, now_s + QUIET_S / 2) is None
    assert builds.quiet_build(now_s, now_s + QUIET_S) is build
    builds.end(build, -1, 0)
    second, is_new = builds.find(NO_ENV, 1)
    assert is_new and second.id == build.id + 1 and second.expected_jobs == 1


def test_numbers_go_on_and_the_last_build_of_the_same_tool_is_expected() -> None:
    builds = builds_after("make", "ninja", "make")
    build = builds.start("make", "make", "/", 1)
    assert (build.id, build.expected_jobs) == (4, 30)
    assert builds.start("ninja", "ninja", "/", 1).expected_jobs == 20
    assert builds.start("cargo", "cargo", "/", 1).expected_jobs == 0
