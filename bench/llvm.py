"""LLVM's Support library with ninja: termite, warm and for the first time, beside plain ninja, distcc and icecc."""

import contextlib
import dataclasses
import shlex
import shutil
from collections.abc import Callable, Sequence

from bench import packages, peers
from bench.builds import (
    EXAMPLES,
    Ground,
    Remote,
    beside,
    build_remotely,
    cluster,
    inside,
    master_share,
    prepare,
    warmed,
)
from bench.figures import Figure, Measured, Target, Targets, compared, of_plain, ratios
from bench.rounds import BenchError, Settings, alternate
from projects import ProjectError, configure

PLACE = "llvm-peers"
TARGET = "LLVMSupport"
QUICK_TARGET = "LLVMDemangle"
LAUNCHERS = {"distcc": "distcc", "pump": "distcc", "icecc": "icecc"}  # by peer
WARM_TARGETS = Targets(wall=Target(1.05), cpu=Target(1.06))
FIRST_TARGETS = Targets(wall=Target(1.15))
NO_PUMP = "include server gave up"  # it then preprocesses at the client, and is distcc


def measure_warm(settings: Settings) -> list[Figure]:
    """Everything known everywhere, and the peers, which know nothing but are up."""
    packages.install(peers.PACKAGES, settings.say)
    ground = llvm_ground(settings)
    with contextlib.ExitStack() as stack:
        sides: dict[str, Callable[[], Measured | Remote]] = {"plain": ground.plain}
        sides["termite"] = stack.enter_context(warmed(ground))
        counted: dict[str, list[float]] = {}
        for name in LAUNCHERS:
            try:
                sides[name] = _peer_side(ground, name, stack, counted.setdefault(name, []))
            except (BenchError, ProjectError) as error:
                settings.note(f"{name} is not measured: {error}")
        runs = alternate(settings, sides)
    remote = [one for one in runs.pop("termite") if isinstance(one, Remote)]
    measured = {side: [one for one in ran if isinstance(one, Measured)] for side, ran in runs.items()}
    plain = measured.pop("plain")
    figures = [*of_plain("llvm", plain), *beside("llvm", "termite", remote, plain, WARM_TARGETS)]
    for name, ran in measured.items():
        figures += [*compared("llvm", name, ran, plain), _faster_than("llvm", name, remote, ran)]
        figures.append(Figure("llvm", f"{name}: compilations by its daemon", "", tuple(counted[name])))
    return [*figures, *inside("llvm", remote), *master_share("llvm", remote, plain)]


def measure_first(settings: Settings) -> list[Figure]:
    """Nothing known, neither in the worker's store nor of the master's digests; and the same on the next day: new
    processes, full store."""
    ground = llvm_ground(settings)
    sides: dict[str, Callable[[], Measured | Remote]] = {
        "plain": ground.plain,
        "first": lambda: _in_new_cluster(ground, keep=False),
        "again": lambda: _in_new_cluster(ground, keep=True),  # in both orders, something was built before it
    }
    runs = alternate(settings, sides)
    plain = [one for one in runs.pop("plain") if isinstance(one, Measured)]
    figures = of_plain("llvm, first build", plain)
    for side, name, targets in (
        ("first", "llvm, first build", FIRST_TARGETS),
        ("again", "llvm, new processes, full store", Targets()),
    ):
        remote = [one for one in runs[side] if isinstance(one, Remote)]
        figures += [*beside(name, "termite", remote, plain, targets), *inside(name, remote)]
    return figures


def llvm_ground(settings: Settings) -> Ground:
    """With a build directory for each launcher beside the plain one."""
    ground = prepare(settings, EXAMPLES / "llvm" / "ninja.toml", PLACE, _configure_for_peers)
    target = QUICK_TARGET if settings.quick else TARGET
    project = dataclasses.replace(ground.project, build=(f"ninja -j{{jobs}} {target}",))
    return dataclasses.replace(ground, project=project)


def _configure_for_peers(ground: Ground) -> None:
    """A build directory of its own for each launcher: CMake writes it into every command."""
    for launcher in sorted(set(LAUNCHERS.values())):
        (line,) = ground.project.configure
        flags = " ".join(f"-DCMAKE_{language}_COMPILER_LAUNCHER={launcher}" for language in ("C", "CXX"))
        project = dataclasses.replace(ground.project, directory=f"build-{launcher}", configure=(f"{line} {flags}",))
        configure(project, ground.place, ground.settings.say)


def _peer_side(ground: Ground, name: str, stack: contextlib.ExitStack, counted: list[float]) -> Callable[[], Measured]:
    """A way to build with the peer, after a small build with it has shown that it works. `counted` gets the number of
    compilations that its daemon did in each build."""
    setup = {"distcc": peers.distcc, "pump": peers.pump, "icecc": peers.icecc}[name]
    base = ground.place.logs.parent / f"peer-{name}"
    shutil.rmtree(base, ignore_errors=True)
    peer = stack.enter_context(setup(base, ground.settings.jobs))
    project = dataclasses.replace(ground.project, directory=f"build-{LAUNCHERS[name]}")

    def build(lines: Sequence[str]) -> Measured:
        return ground.build(name, [shlex.join([*peer.prefix, *shlex.split(line)]) for line in lines], peer.env, project)

    ground.settings.say(f"a small build with {name}, to see that it works")
    log = ground.place.logs / f"{name}.log"
    log.unlink(missing_ok=True)
    build([f"ninja -j{ground.settings.jobs} {QUICK_TARGET}"])
    if NO_PUMP in log.read_text(errors="replace"):
        raise BenchError("its include server does not work with this Python, so it would be distcc")

    def build_all() -> Measured:
        before = peer.compilations()
        measured = build(ground.plain_lines())
        counted.append(float(peer.compilations() - before))
        return measured

    return build_all


def _faster_than(workload: str, peer: str, remote: Sequence[Remote], ran: Sequence[Measured]) -> Figure:
    samples = ratios([one.measured.wall_s for one in remote], [one.wall_s for one in ran])
    return Figure(workload, f"termite / {peer}: wall", "x", samples, Target(1.0))


def _in_new_cluster(ground: Ground, *, keep: bool) -> Remote:
    with cluster(ground, keep=keep) as (master, worker):
        return build_remotely(ground, master, worker)
