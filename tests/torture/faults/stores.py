"""Bits change at rest: in the workers' stores, and in the master's cache of digests."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from tests.torture.rig import WORKERS
from tests.torture.scene import Fault, Scene, Steps, moment

_SHARE = 0.3  # of the blobs of a store


def _flip(blob: Path, scene: Scene) -> None:
    with blob.open("r+b") as file:
        at = scene.rng.randrange(blob.stat().st_size)
        file.seek(at)
        before = file.read(1)
        file.seek(at)
        file.write(bytes([before[0] ^ 1]))


def _truncate(blob: Path, scene: Scene) -> None:
    os.truncate(blob, blob.stat().st_size // 2)


def _grow(blob: Path, scene: Scene) -> None:
    with blob.open("ab") as file:
        file.write(b"more")


def _remove(blob: Path, scene: Scene) -> None:
    blob.unlink()


def _blobs(scene: Scene) -> Iterator[Path]:
    """Yield the blobs of all stores in one order, whatever the file system's is."""
    for name in WORKERS:
        store = scene.rig.seen(scene.rig.cache(name))
        yield from sorted(path for path in store.rglob("cas/??/*") if path.is_file())


def _harm(how: Callable[[Path, Scene], None], scene: Scene) -> None:
    count = 0
    for blob in _blobs(scene):
        if scene.rng.random() < _SHARE:
            with suppress(OSError, ValueError):  # it was evicted, or is empty
                blob.chmod(0o644)
                how(blob, scene)
                count += 1
    scene.injected.append(f"{how.__name__.strip('_')}: {count} blobs")


def _harm_during(how: Callable[[Path, Scene], None]) -> Callable[[Scene], Steps]:
    def inject(scene: Scene) -> Steps:
        yield from moment(scene, high=0.5)
        _harm(how, scene)

    return inject


def _harm_between(how: Callable[[Path, Scene], None]) -> Callable[[Scene], Steps]:
    """Return a fault that harms the stores between two leases, while no mirror runs."""

    def inject(scene: Scene) -> Steps:
        yield from moment(scene, high=0.1)
        for name in WORKERS:
            scene.rig.processes[name].terminate()
            scene.rig.processes[name].wait()
        _harm(how, scene)
        for name in WORKERS:
            scene.rig.start_daemon(name)

    return inject


def _digests(scene: Scene) -> Steps:
    """Overwrite the master's cache of digests, and start another master, which reads it."""
    yield from moment(scene)
    scene.rig.processes["master"].terminate()
    scene.rig.processes["master"].wait()
    cache = scene.rig.where.base / "home" / ".cache" / "termite"
    for file in cache.glob("hashes*"):
        size = file.stat().st_size
        file.write_bytes(scene.rng.choice((b"", scene.rng.randbytes(8192), file.read_bytes()[: size // 2])))
        scene.injected.append(f"{file.name} has {file.stat().st_size} bytes of rubbish")
    scene.rig.start_daemon("master")


FAULTS = (
    *(
        Fault(f"blob:{how.__name__.strip('_')}:{when}", f"{how.__name__.strip('_')} blobs of the stores, {words}",
              make(how), is_warm=True)
        for how in (_flip, _truncate, _grow, _remove)
        for when, words, make in (
            ("during", "while they are used", _harm_during),
            ("between", "between two leases", _harm_between),
        )
    ),
    Fault("digests:rubbish", "the master's cache of digests is overwritten", _digests),
)  # fmt: skip
