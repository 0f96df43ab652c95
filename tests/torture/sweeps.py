"""Call sweeps: the N-th call of a kind fails or is the last one, until none is reached.

A group is a job, a process and a kind of its calls, such as `append/master/wire.write`. A point is
one call of a group and what happens to it, such as `append/master/wire.write#3:EPIPE`.
"""

import fnmatch
import itertools
import random
import re
import shutil
import signal
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.cluster import Tree
from tests.e2e.places import IS_ROOT, place
from tests.torture.checker import check_leftovers
from tests.torture.project import Project, Tool
from tests.torture.rig import USUAL_SETTINGS
from tests.torture.scene import Scene, send
from tests.torture.steps import SMALL
from tests.torture.sweep_jobs import JOBS, SweepJob
from tests.torture.sweep_rig import Point, Sweeper, SweepRig

KINDS = ("root", "ordinary") if IS_ROOT else ("ordinary",)

KILL = ("kill",)
POINTS_AT_ONCE = 4  # random ones of a group
LEAST_TURN_S = 15.0  # daemons start in five
# What happens to the calls of a kind, beside the end of the process.
FAULTS = {
    "wire.write": ("ECONNRESET", "EPIPE", "ETIMEDOUT", "ENOBUFS", "EAGAIN", "short"),
    "wire.readv": ("ECONNRESET", "ETIMEDOUT", "ENOMEM", "EAGAIN", "short", "eof"),
    "wire.send": ("EPIPE", "ENOBUFS", "EAGAIN"),
    "wire.recv": ("ECONNRESET", "EAGAIN", "short", "eof"),
    "wire.accept": ("EMFILE", "ENOMEM", "ECONNABORTED"),
    "wire.open_tcp_stream": ("ECONNREFUSED", "ETIMEDOUT", "EMFILE", "ENOMEM"),
    "wire.memfd_create": ("EMFILE", "ENOMEM"),
    "launchers.accept": ("EMFILE", "ENOMEM", "ECONNABORTED", "EAGAIN"),
    "launchers.getsockopt": ("ENOBUFS",),
    "launchers.read": ("ECONNRESET", "ENOMEM", "EAGAIN", "short", "eof"),
    "launchers.write": ("EPIPE", "ECONNRESET", "ENOBUFS", "EAGAIN", "short"),
    "disk.": ("ENOSPC", "EDQUOT", "EIO", "EMFILE", "EROFS"),
    "looks.": ("EIO", "ENOMEM", "ESTALE", "EMFILE", "EACCES"),
    "worker.": ("EMFILE", "ENOMEM", "EAGAIN", "ENOSPC"),
    "store.": ("ENOSPC", "EDQUOT", "EIO", "EMFILE", "ENOMEM"),
    "mirror.": ("ENOSPC", "EIO", "EMFILE", "ENOMEM"),
    "socket": ("EMFILE", "ENOMEM"),
    "connect": ("ECONNREFUSED", "EAGAIN", "EINTR"),
    "send": ("EPIPE", "ECONNRESET", "ENOBUFS", "EINTR", "short"),
    "read": ("ECONNRESET", "ENOMEM", "EINTR", "short"),
    "write": ("EAGAIN", "EINTR", "short"),
    "poll": ("EINTR", "ENOMEM"),
    "take": ("EAGAIN", "EINTR", "short"),
    "tee": ("EAGAIN", "EINTR", "ENOMEM", "short"),
}
_WARM = {
    "master": ("disk.", "looks.", "wire.write", "wire.readv", "launchers.accept", "launchers.getsockopt",
               "launchers.read", "launchers.write"),
    "mirror": ("wire.write", "wire.readv", "store.", "mirror."),
    "launcher": ("socket", "connect", "send", "read", "write"),
}  # fmt: skip
_WITH_STDIN = {"launcher": ("poll", "take")}
_COLD = {
    "master": ("wire.open_tcp_stream", "wire.memfd_create", "wire.write", "wire.readv"),
    "worker": ("wire.accept", "wire.send", "wire.recv", "worker."),
    "mirror": ("wire.memfd_create", "wire.send", "wire.recv", "wire.write", "wire.readv", "store.", "mirror."),
}


@dataclass(frozen=True, slots=True)
class Group:
    """A group of points. `user` is the kind of place, root or ordinary."""

    user: str
    job: str
    role: str
    calls: str

    @property
    def name(self) -> str:
        return f"{self.user}/{self.job}/{self.role}/{self.calls}"

    @property
    def faults(self) -> tuple[str, ...]:
        """The names of all that may happen to its calls."""
        return (*KILL, *FAULTS[self.calls])


@dataclass(slots=True)
class GroupResult:
    """The result of a group. `problems` are those of each wrong point, by its name."""

    group: Group
    seconds: float = 0.0
    builds: int = 0
    points: int = 0
    problems: dict[str, list[str]] = field(default_factory=dict)

    def line(self) -> str:
        """Return the line for people; the wrong points and the commands that replay them follow."""
        verdict = "FAIL" if self.problems else "ok"
        lines = [f"{verdict} {self.group.name} {self.points} points {self.seconds:.1f} s"]
        for name, problems in self.problems.items():
            lines += [f"    {name}: {problem}" for problem in problems]
            lines.append(f"    again: make torture ARGS='--sweeps {name}'")
        return "\n".join(lines)


def count_points(results: Sequence[GroupResult]) -> tuple[int, int, int, int, int]:
    """Return the points, the builds, and how many points were wrong, hung, and left something.

    A point can be wrong, hang and leave something at once.
    """
    wrong = [problems for result in results for problems in result.problems.values()]

    def count(word: str) -> int:
        return sum(any(problem.startswith(word) for problem in problems) for problems in wrong)

    points, builds = sum(result.points for result in results), sum(result.builds for result in results)
    return points, builds, count("wrong:"), count("hang:"), count("left:")


def sweep_summary(results: Sequence[GroupResult]) -> str:
    """Return the last line of a run."""
    points, builds, wrong, hangs, left = count_points(results)
    return f"{points} faults in {builds} builds: {wrong} wrong, {hangs} hangs, {left} left"


def all_groups() -> list[Group]:
    """Return all groups, those that share a rig behind each other."""
    found = []
    for user in KINDS:
        for is_cold in (False, True):
            for job in JOBS.values():
                if job.is_cold == is_cold:
                    found += [Group(user, job.name, role, calls) for role, calls in _calls_of(job)]
    return found


def _calls_of(job: SweepJob) -> Iterator[tuple[str, str]]:
    tables = (_COLD,) if job.is_cold else (_WARM, _WITH_STDIN) if job.stdin else (_WARM,)
    for table in tables:
        yield from ((role, calls) for role, kinds in table.items() for calls in kinds)


def matching(pattern: str) -> list[Group]:
    """Return the groups whose name begins with `pattern`, which may have wildcards."""
    return [group for group in all_groups() if fnmatch.fnmatch(group.name, f"{pattern}*")]


@dataclass(frozen=True, slots=True)
class Plan:
    """The points of the groups that are hit.

    Usually each call meets each fault. With `most`, only so many calls of each group are hit. They
    are spread over the run of its job, and each meets one fault in turn. 0 means no limit.
    `only` is the number of the only call and what happens to it, or None for all. With `seed`, the
    calls and faults are random ones.
    """

    most: int = 0
    only: tuple[int, str] | None = None
    seed: int | None = None


Work = Sequence[tuple[Group, Plan]]


def run_some(base: Path, seed: int, end: float) -> Iterator[GroupResult]:
    """Hit random points of all groups in turn until `end` (of time.monotonic).

    Each user has his turn with warm leases and with cold ones. In each turn one set of daemons
    serves. A later turn goes on with the groups that the time was too short for.
    """
    waiting: dict[tuple[str, bool], Iterator[tuple[Group, Plan]]] = {}
    for group in all_groups():
        waiting.setdefault(_rig_of(group), iter(()))
    keys = random.Random(seed).sample(sorted(waiting), len(waiting))
    for number, key in enumerate(keys):
        waiting[key] = _endless([group for group in all_groups() if _rig_of(group) == key], seed + number)
    turn_s = max((end - time.monotonic()) / len(keys), LEAST_TURN_S)
    for key in itertools.cycle(keys):
        if (now := time.monotonic()) >= end:
            return
        turn_end = min(now + turn_s, max(end, now + LEAST_TURN_S))
        yield from _run_on_one_rig(base, key, _until(turn_end, waiting[key]))


def _endless(groups: list[Group], seed: int) -> Iterator[tuple[Group, Plan]]:
    for number in itertools.count(seed):
        for group in random.Random(number).sample(groups, len(groups)):
            yield group, Plan(most=POINTS_AT_ONCE, seed=number)


def _until(end: float, work: Iterator[tuple[Group, Plan]]) -> Iterator[tuple[Group, Plan]]:
    """Yield one piece of work, and more until `end`."""
    yield next(work)
    while time.monotonic() < end:
        yield next(work)


def run_groups(base: Path, work: Work) -> Iterator[GroupResult]:
    """Run groups, and yield the result of each. Groups with the same user share daemons."""
    rest = list(work)
    while rest:
        key = _rig_of(rest[0][0])
        same = [(group, plan) for group, plan in rest if _rig_of(group) == key]
        rest = [(group, plan) for group, plan in rest if _rig_of(group) != key]
        yield from _run_on_one_rig(base, key, same)


def _rig_of(group: Group) -> tuple[str, bool]:
    return group.user, JOBS[group.job].is_cold


def _run_on_one_rig(base: Path, key: tuple[str, bool], work: Iterable[tuple[Group, Plan]]) -> Iterator[GroupResult]:
    user, is_cold = key
    here, mark = base / "now", f"torture-sweep-{time.time_ns()}"
    results: list[GroupResult] = []
    with place(user, here, mark) as where:
        (here / "tree").mkdir()
        tree = Tree(where, here / "tree")
        tree.own(tree.path)
        rig = SweepRig(where, tree.path, USUAL_SETTINGS, "0", is_cold=is_cold)
        scene = Scene(Project(0, Tool.MAKE, SMALL, is_repeatable=False), rig, mark, random.Random(0), [])
        try:
            rig.start()
            sweeper = Sweeper(rig, tree)
            for group, plan in work:
                yield from results[-1:]
                results.append(run_group(sweeper, group, plan))
            if left := [*rig.stop(), *filter(_is_for_good, check_leftovers(scene))]:
                results[-1].problems["the end of the daemons"] = left
            yield from results[-1:]
        finally:
            for pid in scene.processes():
                send(pid, signal.SIGKILL)
            rig.kill()
    if any(result.problems for result in results):
        here.rename(base / f"failed-{user}-{time.time_ns()}")
    else:
        shutil.rmtree(here)


def _is_for_good(left: str) -> bool:
    """Return False for a temporary file of a killed mirror. The next mirror removes it."""
    return not re.search(r"/(warm|cas/tmp)/", left)


def run_group(sweeper: Sweeper, group: Group, plan: Plan) -> GroupResult:
    """Hit the points of one group."""
    result = GroupResult(group)
    before = time.monotonic()
    if plan.only:
        _hit(sweeper, result, *plan.only)
    elif plan.most:
        _hit_some(sweeper, result, plan.most, plan.seed)
    else:
        for what in group.faults:
            for number in itertools.count(1):
                if not _hit(sweeper, result, number, what):
                    break
    result.seconds = time.monotonic() - before
    return result


def _hit_some(sweeper: Sweeper, result: GroupResult, most: int, seed: int | None = None) -> None:
    """Hit up to `most` calls, with the faults in turn, beginning with another one in each group.

    With a seed, the calls and the faults are random.
    """
    calls = sweeper.count(JOBS[result.group.job], result.group.role, result.group.calls)
    faults = result.group.faults
    if seed is not None:
        chosen = random.Random(f"{seed} {result.group.name}")
        for number in chosen.sample(range(1, calls + 1), min(calls, most)):
            _hit(sweeper, result, number, chosen.choice(faults))
        return
    turn = zlib.crc32(result.group.name.encode())
    for step in range(min(calls, most)):
        number = 1 + step * calls // min(calls, most)
        _hit(sweeper, result, number, faults[(turn + step) % len(faults)])


def _hit(sweeper: Sweeper, result: GroupResult, number: int, what: str) -> bool:
    """Hit one point, and return whether its call was reached."""
    group = result.group
    hit = sweeper.hit(JOBS[group.job], Point(group.role, group.calls, number, what))
    result.builds += 2
    result.points += bool(hit.was_reached)
    if hit.problems:
        result.problems[f"{group.name}#{number}:{what}"] = [*hit.problems, f"at the call {hit.was_reached}"]
    return bool(hit.was_reached)
