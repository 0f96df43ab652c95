"""Processes stand still: for some seconds (stop), or for ever (freeze)."""

import signal
from collections.abc import Callable

from tests.torture.processes import Kind
from tests.torture.scene import SOON_S, Fault, Scene, Steps, moment, pick, send

_LONGEST_S = 8.0
_FOREVER_S = 3600.0
_NAMED_S = 60.0  # 30 s after the first launcher that waits, which may come late on a busy machine
# A stopped process of the user stands still in a plain build as well.
_FROZEN = (Kind.COORDINATOR, Kind.WORKER, Kind.MASTER, Kind.MIRROR, Kind.ENTER, Kind.SERVE, Kind.WAITING, Kind.PID1)
_STOPPED = (*_FROZEN, Kind.COMMAND, Kind.LAUNCHER, Kind.TOOL)


def _stop(kind: Kind, *, is_forever: bool) -> Callable[[Scene], Steps]:
    def inject(scene: Scene) -> Steps:
        yield from moment(scene)
        pid = yield from pick(scene, kind)
        if pid is None:
            return
        length_s = _FOREVER_S if is_forever else scene.rng.uniform(1.0, _LONGEST_S)
        send(pid, signal.SIGSTOP)
        scene.injected.append(f"stopped {kind.value} {pid}")
        try:
            yield length_s
        finally:
            send(pid, signal.SIGCONT)

    return inject


def _freeze_master(scene: Scene) -> Steps:
    """Stop the master for good, until a launcher names it, and then do what the launcher says."""
    yield from moment(scene)
    pid = yield from pick(scene, Kind.MASTER)
    if pid is None:
        return
    send(pid, signal.SIGSTOP)
    scene.injected.append(f"stopped master {pid}")
    try:
        for _ in range(round(_NAMED_S / SOON_S)):
            if is_named(scene, pid):
                break
            yield SOON_S
        else:
            scene.problems.append(f"hang: no line names the stopped master within {_NAMED_S:g} s")
        send(pid, signal.SIGKILL)
        yield _FOREVER_S
    finally:
        send(pid, signal.SIGCONT)


def is_named(scene: Scene, pid: int) -> bool:
    """Return whether the build has printed that this master does not answer."""
    said = b"the master (process %d, which is stopped) has not answered for 30 s" % pid
    return scene.output is not None and said in scene.output.read_bytes()


def _suspend(scene: Scene) -> Steps:
    """Stop all processes of the round, as a laptop does with its lid closed."""
    yield from moment(scene)
    stopped = list(scene.processes())
    for pid in stopped:
        send(pid, signal.SIGSTOP)
    scene.injected.append(f"suspended {len(stopped)} processes")
    try:
        yield scene.rng.uniform(1.0, _LONGEST_S)
    finally:
        for pid in stopped:
            send(pid, signal.SIGCONT)


FAULTS = (
    *(
        Fault(f"stop:{kind.value}", f"SIGSTOP to a {kind.value} for seconds", _stop(kind, is_forever=False),
              standstill_s=_LONGEST_S)
        for kind in _STOPPED
    ),
    *(
        Fault(f"freeze:{kind.value}", f"SIGSTOP to a {kind.value} for good", _stop(kind, is_forever=True),
              standstill_s=30.0)
        for kind in _FROZEN
        if kind is not Kind.MASTER
    ),
    Fault("freeze:master", "SIGSTOP to a master, which the user kills when a launcher names it", _freeze_master,
          standstill_s=40.0),
    Fault("stop:all", "SIGSTOP to all processes for seconds", _suspend, standstill_s=_LONGEST_S),
)  # fmt: skip
