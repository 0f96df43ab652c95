"""The user interrupts a build, builds twice at once, or lets a runner kill everything."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.e2e.places import COMMANDS
from tests.torture.processes import Kind
from tests.torture.project import Tool, write_project
from tests.torture.scene import SOON_S, Fault, Scene, Steps, moment, pick, send, wait_for_publishing

INTERRUPT_S = 5.0  # the product promises 2 s
_BESIDE = 40  # commands at once beside the build
_OTHER_S = 120.0


def _wait_for(process: "subprocess.Popen[bytes]", limit_s: float) -> Steps:
    deadline = time.monotonic() + limit_s
    while process.poll() is None and time.monotonic() < deadline:
        yield SOON_S


def _press_ctrl_c(scene: Scene) -> Steps:
    """Send SIGINT to the build's group, and report a build that does not end soon."""
    assert scene.build is not None
    scene.injected.append("Ctrl-C")
    with suppress(ProcessLookupError):
        os.killpg(scene.build.pid, signal.SIGINT)
    before = time.monotonic()
    while scene.build.poll() is None and time.monotonic() < before + INTERRUPT_S:
        yield SOON_S
    if scene.build.poll() is None:
        scene.problems.append(f"hang: the build does not end within {INTERRUPT_S:g} s of Ctrl-C")


def _interrupt(scene: Scene) -> Steps:
    yield from moment(scene)
    yield from _press_ctrl_c(scene)


def _interrupt_frozen(scene: Scene) -> Steps:
    yield from moment(scene)
    kind = scene.rng.choice((Kind.MASTER, Kind.MIRROR, Kind.WORKER))
    pid = yield from pick(scene, kind)
    if pid is None:
        return
    send(pid, signal.SIGSTOP)
    try:
        scene.injected.append(f"stopped {kind.value} {pid}")
        yield scene.rng.uniform(0.5, 2.0)
        yield from _press_ctrl_c(scene)
    finally:
        send(pid, signal.SIGCONT)


def _suspend(scene: Scene) -> Steps:
    yield from moment(scene)
    assert scene.build is not None
    os.killpg(scene.build.pid, signal.SIGSTOP)
    scene.injected.append("Ctrl-Z")
    try:
        yield scene.rng.uniform(1.0, 6.0)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(scene.build.pid, signal.SIGCONT)


def _kill_everything(scene: Scene) -> Steps:
    """Stop and kill everything, then start anew, as a CI runner does with a cancelled build."""
    yield from moment(scene)
    yield from _kill_cgroup(scene)


def _kill_everything_publishing(scene: Scene) -> Steps:
    yield from wait_for_publishing(scene, "other/large")
    yield from _kill_cgroup(scene)


def _kill_cgroup(scene: Scene) -> Steps:
    """Kill every process of the round, also those that are started meanwhile."""
    names = tuple(scene.rig.processes)
    scene.injected.append("killed every process at once")
    while found := [process.pid for process in scene.processes().values() if process.state != "Z"]:
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in found:
                send(pid, number)
        for name in names:
            scene.rig.processes[name].poll()
        time.sleep(SOON_S)
    yield 0.0


def _kill_session(scene: Scene) -> Steps:
    """Kill the build tool and everything in its session; the daemons go on."""
    yield from moment(scene)
    assert scene.build is not None
    scene.injected.append("killed the session of the build")
    for pid in scene.processes():
        with suppress(ProcessLookupError):
            if os.getsid(pid) == scene.build.pid:
                os.kill(pid, signal.SIGKILL)


def _two_builds(scene: Scene) -> Steps:
    """Build another directory of the same tree, beside the build."""
    yield from moment(scene, high=0.4)
    rig = scene.rig
    top = rig.tree / "beside"
    seen = scene.tree / "beside"
    _new_directory(seen, rig.where.uid)
    names = " ".join(f"n{n}" for n in range(_BESIDE))
    (seen / "Makefile").write_text(f"all: {names}\nn%:\n\t@echo $@ >>$@; echo $@ >>log-$@\n")
    argv = [rig.where.termite("termite-make"), "-j4"]
    second = rig.where.start(argv, top, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    scene.injected.append("a second build")
    try:
        yield from _wait_for(second, _OTHER_S)
    finally:
        code = second.wait(_OTHER_S)
        made = {name: (seen / name).read_text() for name in names.split() if (seen / name).exists()}
        if code or made != {name: f"{name}\n" for name in names.split()}:
            scene.problems.append(f"wrong: the second build ended with {code} and made {made}")
        shutil.rmtree(seen)


def _two_masters(scene: Scene) -> Steps:
    """Build a second tree with a master of its own on the same workers."""
    rig = scene.rig
    top = rig.where.base / "second"
    _new_directory(top, rig.where.uid)
    write_project(scene.project, top, rig.where.uid)
    flags = ["-secret", str(rig.where.base / "secret.txt"), "-coordinator", rig.coordinator, "-short", "0"]
    argv = [str(COMMANDS / "python"), str(COMMANDS / "termite-master"), *flags]
    log = (rig.where.base / "second.log").open("wb")
    master = rig.where.start(argv, top, stdout=log.fileno(), stderr=log.fileno())
    rig.processes["second"] = master
    while not (top / ".termite-socket").exists():
        yield SOON_S
    words = scene.project.command(4)
    build = rig.where.start([rig.where.termite(f"termite-{words[0]}"), *words[1:]], top, stderr=log.fileno())
    scene.injected.append("a second master")
    try:
        yield from _wait_for(build, _OTHER_S)
    finally:
        build.communicate(timeout=_OTHER_S)
        if build.returncode:
            scene.problems.append(f"wrong: the build of the second tree ended with {build.returncode}")
        master.terminate()
        master.wait(_OTHER_S)
        del rig.processes["second"]
        log.close()


def _new_directory(path: Path, owner: int) -> None:
    path.mkdir()
    if os.geteuid() == 0:
        os.chown(path, owner, owner)


def _many_beside(scene: Scene) -> Steps:
    """Run commands that read their standard input beside the build, all at once."""
    yield from moment(scene, high=0.4)
    rig = scene.rig
    argv = [rig.where.termite("termite"), "sh", "-c", "sort | head -n 1"]
    started = [rig.where.start(argv, rig.tree / "late", stdin=subprocess.PIPE) for _ in range(_BESIDE)]
    scene.injected.append(f"{_BESIDE} commands at once")
    for number, process in enumerate(started):
        output, errors = process.communicate(b"z\n%d\n" % number, timeout=_OTHER_S)
        if (process.returncode, output) != (0, b"%d\n" % number):
            scene.problems.append(f"wrong: a command beside: {process.returncode} {output!r} {errors[-300:]!r}")
        yield 0.0


FAULTS = (
    Fault("user:ctrl-c", "Ctrl-C", _interrupt, ends_build=True),
    Fault("user:ctrl-c-frozen", "Ctrl-C while the master, a mirror or a worker is stopped", _interrupt_frozen,
          ends_build=True),
    Fault("user:ctrl-z", "Ctrl-Z for seconds", _suspend, standstill_s=6.0),
    Fault("user:ci", "a CI runner kills every process, also those of the workers", _kill_everything, ends_build=True),
    Fault("user:ci-publishing", "the same while results are published", _kill_everything_publishing, ends_build=True),
    Fault("user:ci-session", "a CI runner kills the session of the build", _kill_session, ends_build=True),
    Fault("user:two-builds", "two builds at once", _two_builds),
    Fault("user:two-masters", "two masters at once", _two_masters, tools=(Tool.MAKE, Tool.NINJA)),
    Fault("user:many-beside", f"{_BESIDE} commands at once beside the build", _many_beside),
)  # fmt: skip
