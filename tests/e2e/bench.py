"""Run jobs in real sandboxes, over a tree of plain directories in place of the mirror.

A mirror process is uid 0 of a user namespace. If root runs the tests, they need no namespace.
test_sandbox_inside.py runs them once more as an ordinary user, inside the namespaces that
termite-sandbox makes. There they run on a tmpfs, too.
"""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from termite.engine.host.native_programs import native_program
from termite.engine.model import Attr, Digest, Exit
from termite.engine.store.cas import Cas
from termite.fuse.harvest.collect import Harvested, collect
from termite.fuse.sandbox.sandbox_order import SandboxSpec
from termite.fuse.sandbox.sandbox_report import SandboxResult
from termite.fuse.sandbox.sandboxes import Sandboxes
from termite.fuse.view.comparison import Homes

INSIDE = "TERMITE_TEST_INSIDE"
PROJECT = b"home/u/p"

is_mirror = pytest.mark.skipif(os.geteuid() != 0, reason="needs namespaces; test_sandbox_inside.py makes them")
SCRATCHES = ["disk", "tmpfs"] if INSIDE in os.environ else ["disk"]  # a mounted tmpfs ends only with the namespace


@dataclass(frozen=True, slots=True)
class Ended:
    """The result and the output of a job that has ended."""

    job: int
    result: SandboxResult
    stdout: bytes
    stderr: bytes

    @property
    def exit(self) -> Exit:
        return self.result.exit


class Bench:
    """A tree and sandboxes that run jobs in it.

    /usr of this machine lies below the tree, so that jobs find /bin/sh. `own`: as in `Sandboxes`.
    """

    def __init__(self, base: Path, tmpfs: bool, own: tuple[int, ...] = ()) -> None:
        self.mount = base / "mount"
        self.project = self.mount / "tree" / os.fsdecode(PROJECT)
        self.project.mkdir(parents=True)
        for name in ("proc", "sys", "dev", "tmp", "etc"):
            (self.mount / "tree" / name).mkdir()
        (self.mount / "tree" / "usr").symlink_to(".")
        (self.mount / "usr").symlink_to("/usr")  # an order names no layer absolutely
        (base / "scratch").mkdir()
        self.scratch = base / "scratch"
        self.cas = Cas(base / "cas")
        self.sandboxes = Sandboxes(native_program("termite-sandbox"), self.scratch, tmpfs, own=own)
        self._job = 0

    def spec(self, *argv: bytes, **changes: object) -> SandboxSpec:
        self._job += 1
        fields: dict[str, object] = {
            "job": self._job,
            "mount": self.mount,
            "lower": "tree:usr",
            "uid": 1000,
            "gid": 1000,
            "argv": argv,
            "exe": argv[0],
            "search": True,
            "env": (b"PATH=/bin",),
            "cwd": b"/" + PROJECT,
            "umask": 0o022,
        }
        return SandboxSpec(**{**fields, **changes})  # type: ignore[arg-type]  # a test names the fields it means

    async def run(self, *argv: bytes, **changes: object) -> Ended:
        output: dict[bytes, list[bytes]] = {b"1": [], b"2": []}

        async def on_output(chunk: bytes) -> None:
            output[chunk[:1]].append(chunk[1:])

        spec = self.spec(*argv, **changes)
        result = await self.sandboxes.run(spec, on_output)
        return Ended(spec.job, result, b"".join(output[b"1"]), b"".join(output[b"2"]))

    async def sh(self, script: str, **changes: object) -> Ended:
        return await self.run(b"sh", b"-c", os.fsencode(script), **changes)

    async def collect(self, ended: Ended) -> Harvested:
        return await collect(ended.result.upper, Homes(PROJECT), self.lower, self.cas)

    def lower(self, path: bytes) -> Attr | None:
        hashed = path.startswith(PROJECT)
        return attr_of(os.path.join(os.fsencode(self.mount), b"tree", path), hashed) or attr_of(b"/usr/" + path, hashed)


def attr_of(name: bytes, hashed: bool) -> Attr | None:
    try:
        status = os.lstat(name)
    except FileNotFoundError:
        return None
    digest = None
    if hashed and stat.S_ISREG(status.st_mode):
        digest = Digest(hashlib.sha256(Path(os.fsdecode(name)).read_bytes()).digest(), status.st_size)
    target = os.readlink(name) if stat.S_ISLNK(status.st_mode) else b""
    link_id = status.st_ino if status.st_nlink > 1 else 0
    return Attr(status.st_mode, status.st_size, status.st_mtime_ns, digest, target, status.st_nlink, link_id)
