"""Processes are killed, and some daemons are started again."""

import signal
from collections.abc import Callable

from tests.torture.processes import Kind
from tests.torture.scene import SOON_S, Fault, Scene, Steps, moment, pick, send, wait_for_publishing

# The user's own processes: if one is killed, a plain build fails as well.
_OF_THE_USER = (Kind.LAUNCHER, Kind.TOOL, Kind.COMMAND)
_DAEMONS = {Kind.COORDINATOR: ("coordinator",), Kind.WORKER: ("w0", "w1"), Kind.MASTER: ("master",)}
_REPEATED = (Kind.WAITING, Kind.PID1, Kind.MIRROR, Kind.SERVE)  # there are several of them


def _kill(kind: Kind) -> Callable[[Scene], Steps]:
    def inject(scene: Scene) -> Steps:
        for _ in range(scene.rng.choice((1, 2, 3)) if kind in _REPEATED else 1):
            yield from moment(scene)
            pid = yield from pick(scene, kind)
            if pid is not None:
                send(pid, signal.SIGKILL)
                scene.injected.append(f"killed {kind.value} {pid}")

    return inject


def _restart(kind: Kind) -> Callable[[Scene], Steps]:
    def inject(scene: Scene) -> Steps:
        yield from moment(scene)
        name = scene.rng.choice(_DAEMONS[kind])
        scene.rig.processes[name].kill()
        scene.rig.processes[name].wait()
        scene.injected.append(f"killed {name}")
        yield scene.rng.uniform(0.0, 1.5)
        scene.rig.start_daemon(name)

    return inject


def _terminate_master(scene: Scene) -> Steps:
    yield from moment(scene)
    scene.rig.processes["master"].send_signal(signal.SIGTERM)
    scene.injected.append("SIGTERM to the master")


def _kill_publishing_master(scene: Scene) -> Steps:
    yield from wait_for_publishing(scene, "other/large", "once/many", "once/moved")
    scene.rig.processes["master"].kill()
    scene.injected.append("killed the master while it published")


def _kill_all_workers(scene: Scene) -> Steps:
    yield from moment(scene)
    for name in ("w0", "w1"):
        scene.rig.processes[name].kill()
        yield scene.rng.uniform(0.0, 0.3)
    scene.injected.append("killed both workers")


def _kill_workers_after_output(scene: Scene) -> Steps:
    """Kill both workers while a command that has printed something goes on."""
    while not any(b"sleep" in process.argv[:1] for process in scene.processes().values()):
        yield SOON_S
    yield scene.rng.uniform(0.0, 0.1)
    for name in ("w0", "w1"):
        scene.rig.processes[name].kill()
    scene.injected.append("killed both workers below a command that had printed")


_KINDS = tuple(kind for kind in Kind if kind is not Kind.OTHER)
FAULTS = (
    *(
        Fault(f"kill:{kind.value}", f"SIGKILL to a {kind.value}", _kill(kind), ends_build=kind in _OF_THE_USER)
        for kind in _KINDS
    ),
    *(
        Fault(f"restart:{kind.value}", f"SIGKILL to a {kind.value}, which is started again", _restart(kind))
        for kind in _DAEMONS
    ),
    Fault("kill:workers", "SIGKILL to all workers", _kill_all_workers),
    Fault("kill:workers-printed", "SIGKILL to all workers while a job has printed", _kill_workers_after_output),
    Fault("kill:master-publishing", "SIGKILL to the master while it publishes", _kill_publishing_master),
    Fault("term:master", "SIGTERM to the master", _terminate_master),
)
