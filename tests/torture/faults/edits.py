"""The user works in the tree while it is built.

A source that changed during the build may have been compiled before or after the change, in a plain
build as well. The round therefore builds once more, and compares with a plain build of what is
there.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.torture.processes import Kind
from tests.torture.scene import Fault, Scene, Steps, moment, pick, send

_OVERFLOW = 9000  # pairs of a new and a removed file: more events than the kernel queues for inotify
_STORM_S = 4.0


def _replace(path: Path, content: bytes) -> None:
    """Replace a file by another one of the same mode and owner, as editors do."""
    status = path.stat()
    new = path.with_name(".new")
    new.write_bytes(content)
    new.chmod(status.st_mode & 0o7777)
    os.chown(new, status.st_uid, status.st_gid)
    new.rename(path)


def _edit(scene: Scene) -> Steps:
    sources = sorted(path for path in scene.tree.glob("lib*/*.c"))
    for _ in range(3):
        yield from moment(scene)
        path = scene.rng.choice(sources)
        content = path.read_bytes() + b"int extra_%d;\n" % scene.rng.randrange(10**6)
        if scene.rng.random() < 0.5:
            path.write_bytes(content)
        else:
            _replace(path, content)
        name = str(path.relative_to(scene.tree))
        scene.edited[name] = content
        scene.injected.append(f"edited {name}")


def _same_content(scene: Scene) -> Steps:
    """Write files again with their own content and time, as some generators do."""
    yield from moment(scene, high=0.2)
    names = ("version.txt", "tools/gen.sh", "late/s.h", "shadow.c")
    scene.injected.append("the same content again and again")
    deadline = time.monotonic() + _STORM_S
    while time.monotonic() < deadline:
        path = scene.tree / scene.rng.choice(names)
        status, content = path.stat(), path.read_bytes()
        new = path.with_name(".new")
        new.write_bytes(content)
        new.chmod(status.st_mode & 0o7777)
        os.chown(new, status.st_uid, status.st_gid)
        os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
        new.rename(path)
        yield scene.rng.uniform(0.0, 0.02)


def _directory_storm(scene: Scene) -> Steps:
    """Let a directory of headers appear and go beside those that are used."""
    yield from moment(scene, low=0.1, high=0.3)
    scene.injected.append("a directory appears and goes")
    deadline = time.monotonic() + _STORM_S
    junk, renamed = (scene.tree / "include" / name for name in ("junk", "junk2"))
    while time.monotonic() < deadline:
        junk.mkdir(parents=True, exist_ok=True)
        (junk / "j.h").write_text("x")
        junk.rename(renamed)
        shutil.rmtree(renamed)
        yield scene.rng.uniform(0.0, 0.05)


def _checkout(scene: Scene) -> Steps:
    """Make a branch with other sources before the build, and check it out during the build."""
    top = scene.tree

    def git(*words: str) -> None:
        names = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "safe.directory=*"]
        subprocess.run(["git", *names, *words], cwd=top, check=True, capture_output=True)

    yield from moment(scene)
    names = [str(path.relative_to(top)) for path in sorted(top.glob("lib0/*.c"))]
    before = {name: (top / name).read_bytes() for name in names}
    git("init", "-q", "-b", "one")
    git("add", *names)
    git("commit", "-qm", "one")
    after = {name: content.replace(b"return ", b"return 1 + ") for name, content in before.items()}
    git("checkout", "-qb", "two")
    for name, content in after.items():
        (top / name).write_bytes(content)
    git("commit", "-qam", "two")
    git("checkout", "-q", "one")
    yield scene.rng.uniform(0.0, 0.3)
    git("checkout", "-q", "two")
    scene.edited.update(after)
    scene.injected.append("checked out another branch")
    shutil.rmtree(top / ".git")


def _overflow(scene: Scene) -> Steps:
    """Make more events than the kernel queues while the master is stopped; edit a source, too."""
    yield from moment(scene, low=0.1, high=0.5)
    pid = yield from pick(scene, Kind.MASTER)
    if pid is None:
        return
    path = scene.rng.choice(sorted(scene.tree.glob("lib1/*.c")))
    content = path.read_bytes() + b"int overflowed;\n"
    send(pid, signal.SIGSTOP)
    try:
        for _ in range(_OVERFLOW):
            (scene.tree / "late" / "junk").touch()
            (scene.tree / "late" / "junk").unlink()
        path.write_bytes(content)
    finally:
        send(pid, signal.SIGCONT)
    scene.edited[str(path.relative_to(scene.tree))] = content
    scene.injected.append("the queue of inotify overflowed, and a source was edited")


FAULTS = (
    Fault("edit:sources", "sources are edited during the build", _edit, ends_build=True),
    Fault("edit:same-content", "sources are replaced by equal ones again and again", _same_content),
    Fault("edit:directory-storm", "a directory appears and goes again and again", _directory_storm),
    Fault("edit:checkout", "git checks out another branch during the build", _checkout, ends_build=True),
    Fault("edit:overflow", "the queue of inotify overflows, and a source is edited", _overflow, ends_build=True,
          standstill_s=10.0),
)  # fmt: skip
