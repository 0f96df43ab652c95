"""The lines between the master and its workers are slow, broken or wrong."""

from collections.abc import Callable

from tests.torture.rig import WORKERS, Settings
from tests.torture.scene import Fault, Scene, Steps, moment

_STALL_S = 8.0
_SLOW_S = 60.0


def _nothing_more(words: str) -> Callable[[Scene], Steps]:
    """Return a fault that is there from the beginning of the build."""

    def inject(scene: Scene) -> Steps:
        scene.injected.append(words)
        yield 0.0

    return inject


def _cut(scene: Scene) -> Steps:
    for _ in range(3):
        yield from moment(scene, high=0.8)
        size = scene.rng.randrange(1, 20000)
        scene.rig.order(scene.rng.choice(WORKERS), f"cut {size}")
        scene.injected.append(f"cut after {size} bytes")


def _reset_all(scene: Scene) -> Steps:
    yield from moment(scene)
    for name in WORKERS:
        scene.rig.order(name, "reset")
    scene.injected.append("all connections reset")


def _stall(scene: Scene) -> Steps:
    yield from moment(scene)
    for name in WORKERS:
        scene.rig.order(name, "stall")
    scene.injected.append("all lines stalled")
    yield scene.rng.uniform(1.0, _STALL_S)
    for name in WORKERS:
        scene.rig.order(name, "go")


def _silence(scene: Scene) -> Steps:
    yield from moment(scene)
    name = scene.rng.choice(WORKERS)
    scene.rig.order(name, "stall")
    scene.injected.append(f"{name} silent for good")


def _corrupt(scene: Scene) -> Steps:
    for _ in range(2):
        yield from moment(scene, high=0.8)
        name = scene.rng.choice(WORKERS)
        scene.rig.order(name, "corrupt")
        scene.injected.append(f"one bit changed on the line of {name}")


def _corrupt_handshake(scene: Scene) -> Steps:
    """Break a connection, and change a bit of the handshake of the next one."""
    yield from moment(scene, high=0.5)
    name = scene.rng.choice(WORKERS)
    scene.rig.order(name, "reset")
    scene.rig.order(name, "corrupt")
    scene.injected.append(f"one bit changed in a handshake with {name}")


def _refuse(scene: Scene) -> Steps:
    yield from moment(scene)
    for name in WORKERS:
        scene.rig.order(name, "refuse")
        scene.rig.order(name, "cut 0")
    scene.injected.append("no worker can be reached any more")


_LINES = Settings(lines=True)
FAULTS = (
    Fault("line:cut", "connections break in the middle of a message", _cut, _LINES),
    Fault("line:reset", "all connections are reset", _reset_all, _LINES),
    Fault("line:stall", "all lines pass nothing on for seconds", _stall, _LINES, standstill_s=_STALL_S + 30.0),
    Fault("line:silent", "one line passes nothing on for good", _silence, _LINES, standstill_s=30.0),
    Fault("line:corrupt", "bits change on the line", _corrupt, _LINES),
    Fault("line:corrupt-handshake", "a bit changes in a handshake", _corrupt_handshake, _LINES),
    Fault("line:refuse", "no worker can be reached any more", _refuse, _LINES),
    Fault("line:delay20", "20 ms in each direction", _nothing_more("20 ms"), Settings(lines=True, delay_s=0.02),
          standstill_s=_SLOW_S),
    Fault("line:delay50", "50 ms in each direction", _nothing_more("50 ms"), Settings(lines=True, delay_s=0.05),
          standstill_s=_SLOW_S),
    Fault("line:throttle", "300 KB/s in each direction", _nothing_more("300 KB/s"), Settings(lines=True, rate=300_000),
          standstill_s=_SLOW_S),
)  # fmt: skip
