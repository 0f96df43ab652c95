"""Act as a job on a MasterTree, and compare the tree with the disk. Test modules share this."""

import os
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from termite.engine.model import Attr, Change, Digest
from termite.engine.tree.logic.times import Timing
from termite.engine.tree.master_tree import MasterTree
from termite.engine.tree.publishing.publication import NOBODY, Published, Ticket

NS = 10**9
LONGEST_S = 20


@contextmanager
def not_for_ever() -> Iterator[None]:
    """Raise TimeoutError in the main thread if the block takes too long, also in a system call."""

    def give_up(*_: object) -> None:
        raise TimeoutError("it waits in a system call")

    old = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def tree_path(path: Path) -> bytes:
    return os.fsencode(path)[1:]


def digest_of(content: bytes) -> Digest:
    return Digest(sha256(content).digest(), len(content))


class Job:
    """The changes of one job, as a worker whose clock is right would report them."""

    def __init__(self, home: MasterTree, root: Path) -> None:
        self.home = home
        self.root = root
        self.number = home.drain()
        self.dispatched_ns = home.now_ns()
        self.started_ns = time.time_ns()
        self.changes: list[Change] = []
        self.contents: dict[bytes, bytes | Path] = {}

    def write(self, name: str, content: bytes = b"", mode: int = 0o644, mtime_ns: int | None = None) -> "Job":
        digest = digest_of(content)
        self.contents[digest.sha256] = content
        attr = Attr(stat.S_IFREG | mode, len(content), mtime_ns or time.time_ns(), digest)
        return self.change(name, attr)

    def mkdir(self, name: str, mode: int = 0o755, mtime_ns: int | None = None) -> "Job":
        return self.change(name, Attr(stat.S_IFDIR | mode, 0, mtime_ns or time.time_ns()))

    def change(self, name: str, attr: Attr | None, *, link_to: str | None = None, content: bool = True) -> "Job":
        target = tree_path(self.root / link_to) if link_to else None
        self.changes.append(Change(tree_path(self.root) + b"/" + os.fsencode(name), attr, target, content))
        return self

    def delete(self, *names: str) -> "Job":
        for name in names:
            self.change(name, None)
        return self

    async def end(self, offset_ns: int = 0, ticket: Ticket = NOBODY) -> Published:
        timing = Timing(self.dispatched_ns, self.started_ns, time.time_ns(), offset_ns, self.number)
        return await self.home.publish(self.changes, self.contents, timing, ticket)


def staged_names(root: Path) -> list[str]:
    """Return what is staged: everything in the staging directory but what a master keeps there."""
    names = os.listdir(root / ".termite-staging")
    return sorted(name for name in names if name not in ("now", ".gitignore") and not name.startswith("plan-"))


async def changed_since(home: MasterTree, root: Path, since: int) -> dict[str, Attr | None]:
    """Return what the journal says since number `since`, by path below the root."""
    changes = [change for changeset in home.changesets_since(since) for change in changeset.changes]
    top = tree_path(root) + b"/"
    return {os.fsdecode(c.path[len(top) :]): c.attr for c in changes if c.path.startswith(top)}


async def serve(home: MasterTree, *directories: Path) -> None:
    for directory in directories:
        await home.directory(tree_path(directory))


async def agrees_with_the_disk(home: MasterTree, directory: Path) -> bool:
    _, _, children = await home.directory(tree_path(directory))
    for name, attr in children.items():
        st = os.lstat(os.path.join(os.fsencode(directory), name))
        if (st.st_mode, st.st_mtime_ns) != (attr.mode, attr.mtime_ns):
            return False
    return set(children) == set(os.listdir(os.fsencode(directory))) - {b".termite-staging"}
