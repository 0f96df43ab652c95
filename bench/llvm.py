"""Builds of LLVM's Support library: with termite, plain ninja, distcc and icecc."""

import contextlib
import dataclasses
import functools
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench import packages, peers
from bench.builds import (
    EXAMPLES,
    Ground,
    Remote,
    all_of,
    beside,
    build_remotely,
    cluster,
    inside,
    master_share,
    measure_both,
    prepare,
    warmed,
)
from bench.figures import Figure, Measured, Target, Targets, compared, of_plain, ratios
from bench.rounds import FAILURES, BenchError, Settings
from bench.turns import TERMITE, Steps, alone, in_turns
from projects import configure

PLACE = "llvm-peers"
TARGET = "LLVMSupport"
QUICK_TARGET = "LLVMDemangle"
LAUNCHERS = {"distcc": "distcc", "pump": "distcc", "icecc": "icecc"}  # by peer
WARM_TARGETS = Targets(wall=Target(1.05), cpu=Target(1.06))
FIRST_TARGETS = Targets(wall=Target(1.15))
NO_PUMP = "include server gave up"  # pump then preprocesses on the client, as plain distcc does


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled build is one with a peer, and the number of files that the peer's daemon compiled.

    The number shows whether the peer's client compiled files itself.
    """

    measured: Measured
    files: float


def measure_warm(settings: Settings) -> list[Figure]:
    """Measure warm builds with termite, and builds with peers, whose daemons are already running.

    A peer that cannot be measured is left out with a note.
    """
    ground = llvm_ground(settings)
    with contextlib.ExitStack() as stack:
        sides: dict[str, Callable[[], Steps[Measured] | Steps[Remote] | Steps[Compiled]]] = {"plain": ground.plain}
        sides[TERMITE] = stack.enter_context(warmed(ground))
        for name in LAUNCHERS:
            try:
                packages.install(peers.PACKAGES, settings.say)
                with contextlib.ExitStack() as own:
                    sides[name] = _peer_side(ground, name, own)
                    stack.enter_context(own.pop_all())  # a peer that does not work is ended here
            except FAILURES as error:
                settings.note(f"{name} is not measured: {error}")
        runs = in_turns(settings, sides)
    remote = all_of(Remote, runs.pop(TERMITE))
    plain = all_of(Measured, runs.pop("plain"))
    figures = [*of_plain("llvm", plain), *beside("llvm", TERMITE, remote, plain, WARM_TARGETS)]
    for name, ran in runs.items():
        compiled = all_of(Compiled, ran)
        measured = [one.measured for one in compiled]
        figures += [*compared("llvm", name, measured, plain), _faster_than("llvm", name, remote, measured)]
        figures.append(
            Figure("llvm", f"{name}: files that its daemon compiled", "", tuple(one.files for one in compiled))
        )
    return [*figures, *inside("llvm", remote), *master_share("llvm", remote, plain)]


def measure_first(settings: Settings) -> list[Figure]:
    """Measure first builds, and builds of the next day.

    A first build starts with an empty store on the worker and without digests on the master. A
    build of the next day starts new processes, but store and digests are those of an earlier build.
    """
    ground = llvm_ground(settings)
    figures: list[Figure] = []
    for name, keep, targets in (
        ("llvm, first build", False, FIRST_TARGETS),
        ("llvm, new processes, full store", True, Targets()),
    ):
        plain, remote = measure_both(settings, ground.plain, functools.partial(_in_new_cluster, ground, keep=keep))
        figures += [*of_plain(name, plain), *beside(name, TERMITE, remote, plain, targets), *inside(name, remote)]
    return figures


def llvm_ground(settings: Settings) -> Ground:
    """Prepare LLVM with a build directory for each peer's launcher beside the plain one."""
    ground = prepare(settings, EXAMPLES / "llvm" / "ninja.toml", PLACE, _configure_for_peers)
    target = QUICK_TARGET if settings.quick else TARGET
    project = dataclasses.replace(ground.project, build=(f"ninja -j{{jobs}} {target}",))
    return dataclasses.replace(ground, project=project)


def _configure_for_peers(ground: Ground) -> None:
    """Configure a build directory for each launcher, because CMake writes it into every command."""
    for launcher in sorted(set(LAUNCHERS.values())):
        (line,) = ground.project.configure
        flags = " ".join(f"-DCMAKE_{language}_COMPILER_LAUNCHER={launcher}" for language in ("C", "CXX"))
        project = dataclasses.replace(ground.project, directory=f"build-{launcher}", configure=(f"{line} {flags}",))
        configure(project, ground.place, ground.settings.say)


def _peer_side(ground: Ground, name: str, stack: contextlib.ExitStack) -> Callable[[], Steps[Compiled]]:
    """Start a peer, check it with a small build, and return a function that begins a build with it.

    Raise BenchError if the peer's daemon compiles nothing.
    """
    setup = {"distcc": peers.distcc, "pump": peers.pump, "icecc": peers.icecc}[name]
    base = ground.place.logs.parent / f"peer-{name}"
    shutil.rmtree(base, ignore_errors=True)
    with ground.settings.accounts.inside(name):
        peer = stack.enter_context(setup(base, ground.settings.jobs))
    project = dataclasses.replace(ground.project, directory=f"build-{LAUNCHERS[name]}")

    def build(lines: Sequence[str]) -> Steps[Compiled]:
        before = peer.compiled()
        words = [shlex.join([*peer.prefix, *shlex.split(line)]) for line in lines]
        measured = yield ground.build(name, words, peer.env, project)
        return Compiled(measured, float(peer.compiled() - before))

    ground.settings.say(f"a small build with {name}, to see that it works")
    log = ground.place.logs / f"{name}.log"
    log.unlink(missing_ok=True)
    small = alone(ground.settings, build([f"ninja -j{ground.settings.jobs} {QUICK_TARGET}"]))
    if NO_PUMP in log.read_text(errors="replace"):
        raise BenchError("its include server does not work with this Python, so that it would work as plain distcc")
    if not small.files:
        raise BenchError(f"its daemon compiled nothing: see {peer.log}")
    return lambda: build(ground.plain_lines())


def _faster_than(workload: str, peer: str, remote: Sequence[Remote], ran: Sequence[Measured]) -> Figure:
    samples = ratios([one.measured.wall_s for one in remote], [one.wall_s for one in ran])
    return Figure(workload, f"termite / {peer}: wall", "x", samples, Target(1.0))


def _in_new_cluster(ground: Ground, *, keep: bool) -> Steps[Remote]:
    with cluster(ground, keep=keep) as (master, worker):
        return (yield from build_remotely(ground, master, worker))
