"""Run the builds of several sides in turns: each side has the whole machine for a second at a time.

A machine's speed changes from one minute to the next, and a build takes minutes. In turns all sides
meet the same machine. Between its turns, a side is stopped with its daemons by the freezer of
cgroups. Each side has a tree of its own, which a mount namespace shows at the same path.

Clocks go on while a side is stopped, and so does a wait for a clock. Therefore nothing with a delay
of its own, such as a slow link, can be measured in turns.
"""

import contextlib
import os
import select
import shlex
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.cpu import Group, machine_s
from bench.figures import Measured
from bench.rounds import Settings, alternate, in_rounds, order
from projects import BUILD_LIMIT_S, Place, Project, ProjectError, end, failed, run, start
from trees import put_back

TURN_S = 1.0  # shorter turns compare better, but stop more commands during their run; termite then takes them for long
AFTER_S = 1.0  # after the end of a build its daemons clean up, and their CPU counts too
TERMITE = "termite"  # its tree has the path at which all sides see theirs, because its master serves that path
# This script enters a side's cgroup, shows its tree at the common path, and runs its command. The
# arguments are the cgroup, the side's tree, the common path, the directory, and the command. It
# does not use cd, which would export OLDPWD: for termite, another environment means another
# command.
ENTER = 'echo 0 > "$1"/cgroup.procs && mount --bind "$2" "$3" && shift 3 && exec env --chdir="$@"'

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Build:
    """A build is one side's command lines, run one after the other in the tree as configured."""

    side: str
    lines: tuple[str, ...]
    env: Mapping[str, str]
    project: Project
    place: Place

    @property
    def tree(self) -> Path:
        """The side's own tree, which its build sees at `place.tree`."""
        return self.place.tree if self.side == TERMITE else self.place.tree.with_name(f"tree-{self.side}")


Steps = Generator[Build, Measured, T]  # a side yields its build, receives the measurement, and returns its result


def alone(settings: Settings, steps: Steps[T]) -> T:
    """Measure one build that has the whole machine from its start to its end."""
    build = next(steps)
    put_back(build.place.tree, build.place.saved)

    def work() -> None:
        for line in build.lines:
            run(shlex.split(line), build.project, build.place, build.side, env=build.env, limit_s=BUILD_LIMIT_S)

    return _result(steps, settings.accounts.measure(work, AFTER_S))


def as_measured(settings: Settings, steps: Steps[T]) -> T:
    """Run one build alone, but in its side's cgroup and tree if builds are measured in turns.

    Use it to warm a side up: the build must see the same environment as the measured ones.
    """
    if not can_take_turns(settings):
        return alone(settings, steps)
    (measured,) = _build_in_turns(settings, [next(steps)])
    return _result(steps, measured)


def in_turns(settings: Settings, sides: Mapping[str, Callable[[], Steps[T]]]) -> dict[str, list[T]]:
    """Measure each side once in every round, in turns if possible, else one after the other."""
    if not can_take_turns(settings):
        settings.note("builds ran one after the other: turns need root and a cgroup of version 2")
        return alternate(settings, {side: _alone(settings, begin) for side, begin in sides.items()})

    def one_round(number: int) -> dict[str, T]:
        chosen = order(list(sides), number)
        settings.say(f"round {number + 1} of {settings.rounds}: {', '.join(chosen)} in turns")
        with contextlib.ExitStack() as stack:
            steps = {side: stack.enter_context(contextlib.closing(sides[side]())) for side in chosen}
            took = _build_in_turns(settings, [next(steps[side]) for side in chosen])
            return {side: _result(steps[side], measured) for side, measured in zip(chosen, took, strict=True)}

    return in_rounds(settings, one_round)


def can_take_turns(settings: Settings) -> bool:
    """Return True if builds can take turns: that needs root and a cgroup of version 2."""
    return settings.accounts.cgroup is not None and os.geteuid() == 0


@dataclass(slots=True)
class _Running:
    """A running build is one that takes turns. `process` runs the first of the lines in `left`."""

    build: Build
    group: Group
    left: list[str]
    process: "subprocess.Popen[bytes] | None" = None
    measured: Measured = field(default_factory=lambda: Measured(0.0, 0.0, 0.0))

    def take_turn(self) -> None:
        """Run for TURN_S seconds or to the end of the build, and add the time and CPU of this turn.

        The time goes from the thaw of the side's processes until all of them are frozen again.
        """
        machine, own, began = machine_s(), self.group.cpu_s(), time.monotonic()
        self.group.go()
        while self.left and (left_s := began + TURN_S - time.monotonic()) > 0:
            self._go_on(left_s)
        self.group.stop()
        self._add(time.monotonic() - began, machine, own)

    def tidy_up(self) -> None:
        """Let the daemons clean up for AFTER_S seconds; add their CPU, but no wall time."""
        machine, own = machine_s(), self.group.cpu_s()
        self.group.go()
        time.sleep(AFTER_S)
        self.group.stop()
        self._add(0.0, machine, own)

    def _go_on(self, limit_s: float) -> None:
        if self.process is None:
            self.process = self._start(shlex.split(self.left[0]))
        if not _has_ended(self.process, limit_s):
            return
        if code := self.process.wait():
            log = self.build.place.logs / f"{self.build.side}.log"
            raise failed(self.left[0], code, log, log.read_text(errors="replace").splitlines())
        self.process = None
        del self.left[0]

    def _start(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        build = self.build
        enter = ["unshare", "--mount", "--propagation=private", "sh", "-c", ENTER, "sh"]
        directory = build.place.tree / build.project.directory
        places = [str(self.group.path), str(build.tree), str(build.place.tree), str(directory)]
        return start([*enter, *places, *command], build.project, build.place, build.side, env=build.env)

    def _add(self, wall_s: float, machine: float, own: float) -> None:
        so_far = self.measured
        self.measured = Measured(
            so_far.wall_s + wall_s,
            so_far.machine_s + machine_s() - machine,
            so_far.own_s + self.group.cpu_s() - own,
        )


def _build_in_turns(settings: Settings, builds: Sequence[Build]) -> list[Measured]:
    for build in builds:
        build.tree.mkdir(exist_ok=True)
        put_back(build.tree, build.place.saved)
    sides = [_Running(build, settings.accounts.group(build.side), list(build.lines)) for build in builds]
    with _ended(sides):
        for side in sides:
            side.group.stop()
        deadline = time.monotonic() + len(sides) * BUILD_LIMIT_S
        while building := [side for side in sides if side.left]:
            if time.monotonic() > deadline:
                names = ", ".join(side.build.side for side in building)
                raise ProjectError(f"builds do not end ({names}): see {builds[0].place.logs}")
            for side in building:
                side.take_turn()
        for side in sides:
            side.tidy_up()
    return [side.measured for side in sides]


@contextlib.contextmanager
def _ended(sides: Sequence[_Running]) -> Iterator[None]:
    """Thaw all sides and end their builds when the context ends."""
    try:
        yield
    finally:
        for side in sides:
            side.group.go()
        for side in sides:
            if side.process is not None:
                end(side.process)


def _has_ended(process: "subprocess.Popen[bytes]", limit_s: float) -> bool:
    """Wait up to `limit_s` for the end of a process; Popen.wait would poll with long pauses."""
    pidfd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(max(1, round(1000 * limit_s))))
    finally:
        os.close(pidfd)


def _alone(settings: Settings, begin: Callable[[], Steps[T]]) -> Callable[[], T]:
    return lambda: alone(settings, begin())


def _result(steps: Steps[T], measured: Measured) -> T:
    try:
        steps.send(measured)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("a side builds once")
