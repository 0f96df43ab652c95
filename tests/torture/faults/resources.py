"""Disks fill up, and processes reach their limits."""

import os
import resource
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.torture.processes import Kind
from tests.torture.rig import BELOW, Settings
from tests.torture.scene import Fault, Scene, Steps, moment, pick

_BLOCK = bytes(64 * 1024)
_BALLOON = ".balloon"
PYTHON = "/usr/bin/python3"  # any user can run it


def _from_the_start(words: str) -> Callable[[Scene], Steps]:
    def inject(scene: Scene) -> Steps:
        scene.injected.append(words)
        yield 0.0

    return inject


def _fill(where: Callable[[Scene], Path]) -> Callable[[Scene], Steps]:
    """Return a fault that fills a file system, and empties it again after a while."""

    def inject(scene: Scene) -> Steps:
        yield from moment(scene)
        balloon = where(scene) / _BALLOON
        try:
            with suppress(OSError), balloon.open("wb", buffering=0) as file:
                while file.write(_BLOCK):
                    pass
            scene.injected.append(f"{balloon.parent.name} is full")
            yield scene.rng.uniform(0.5, 3.0)
        finally:
            balloon.unlink(missing_ok=True)

    return inject


def _open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd")) + 1


def _memory(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * resource.getpagesize() + 256 * 1024


def _limit(kind: Kind, which: int, value: Callable[[int], int]) -> Callable[[Scene], Steps]:
    """Return a fault that lowers the soft limit of a running process for some seconds."""

    def inject(scene: Scene) -> Steps:
        yield from moment(scene, high=0.6)
        pid = yield from pick(scene, kind)
        if pid is None:
            return
        with suppress(OSError):  # the process ends
            limit = value(pid)
            before = _set_soft_limit(pid, which, limit)
            scene.injected.append(f"limit {limit} for {kind.value} {pid}")
            try:
                yield scene.rng.uniform(1.0, 4.0)
            finally:
                _set_soft_limit(pid, which, before)

    return inject


def _set_soft_limit(pid: int, which: int, limit: int) -> int:
    """Set a soft limit of another process, and return the one before.

    The kernel lets the process's own user do so. Root in a container often may not, so that a child
    becomes that user. Raise OSError if the limit cannot be set.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    uid, gid = (int(status.partition(f"{word}:\t")[2].split()[0]) for word in ("Uid", "Gid"))
    become = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"] if os.geteuid() == 0 else []
    program = (
        f"import resource as r; s, h = r.prlimit({pid}, {which}); r.prlimit({pid}, {which}, ({limit}, h)); print(s)"
    )
    done = subprocess.run([*become, PYTHON, "-I", "-c", program], capture_output=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.decode(errors="replace"))
    return int(done.stdout)


def _cache(scene: Scene) -> Path:
    return scene.rig.seen(scene.rig.cache("w0"))


def _scratch(scene: Scene) -> Path:
    return scene.rig.seen(scene.rig.scratch("w0"))


_LIMITED = (Kind.MASTER, Kind.MIRROR, Kind.WORKER)
FAULTS = (
    Fault("space:cache-fills", "a worker's cache is full for seconds", _fill(_cache), Settings(cache_mb=64),
          needs_root=True),
    Fault("space:cache-small", "the workers' caches have 4 MB", _from_the_start("4 MB"), Settings(cache_mb=4),
          needs_root=True),
    Fault("space:scratch-fills", "a worker's scratch is full for seconds", _fill(_scratch), Settings(scratch_mb=64),
          needs_root=True),
    Fault("space:scratch-small", "the workers' scratch has 4 MB", _from_the_start("4 MB"), Settings(scratch_mb=4),
          needs_root=True),
    Fault("space:tree-fills", "the file system of the tree is full for seconds", _fill(lambda scene: scene.tree),
          Settings(tree_mb=24), ends_build=True, needs_root=True),
    Fault("space:below-fills", "a file system below the tree is full for seconds",
          _fill(lambda scene: scene.tree / BELOW), Settings(below_mb=8), ends_build=True, needs_root=True),
    *(
        Fault(f"limit:{kind.value}:files", f"a {kind.value} may open one more file, for seconds",
              _limit(kind, resource.RLIMIT_NOFILE, _open_files))
        for kind in (*_LIMITED, Kind.COORDINATOR, Kind.SERVE)
    ),
    *(
        Fault(f"limit:{kind.value}:memory", f"a {kind.value} gets 256 KB more memory at most, for seconds",
              _limit(kind, resource.RLIMIT_AS, _memory))
        for kind in _LIMITED
    ),
    *(
        Fault(f"limit:{kind.value}:size", f"a {kind.value} may write 100 bytes to a file, for seconds",
              _limit(kind, resource.RLIMIT_FSIZE, lambda pid: 100))
        for kind in (Kind.MASTER, Kind.MIRROR)
    ),
    *(
        Fault(f"limit:master:hard{count}", f"the master may open {count} files, from its start",
              _from_the_start(f"{count} files"), Settings(prefix=("prlimit", f"--nofile={count}:{count}")))
        for count in (40, 64, 128)
    ),
)  # fmt: skip
