"""Files on a tmpfs may have any date; a message and a database have a range.

A local command sets such dates: tar, `cp -p` and `touch` do.
"""

import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from termite.engine.model import Attr
from termite.engine.paths import tree_path as disk_path
from termite.engine.private_directories import remove_tree
from termite.engine.tree import hashes
from termite.engine.tree.logic.times import wire_ns
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from termite.engine.wire.protocol.messages import Directory
from tests.edge.engine.tree.tree_jobs import NS, Job, serve, staged_names, tree_path

TMPFS = Path("/dev/shm")
DATES = {"1500": -14_831_769_600, "1676": -9_300_000_000, "2263": 9_250_000_000, "2600": 19_880_899_200}


@pytest.fixture
def place() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="termite-dates-", dir=TMPFS))
    (made / "tree/d").mkdir(parents=True)
    yield made
    remove_tree(made)


async def listed(home: MasterTree, directory: Path) -> dict[bytes, Attr]:
    """Return the entries of a directory as a mirror gets them."""
    answer = Directory(*await home.directory(tree_path(directory)))
    return msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=Directory).children


@pytest.mark.skipif(not os.access(TMPFS, os.W_OK), reason="no tmpfs at /dev/shm")
@pytest.mark.parametrize("date", DATES.values(), ids=DATES)
async def test_a_file_of_another_age_is_known_served_and_replaced(
    place: Path, date: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "TICK_NS", 0)  # every digest is saved at once
    root, date_ns = place / "tree", date * NS
    home = MasterTree(TreeConfig(disk_path(root), hash_cache=place / "hashes"))
    for name in ("kept", "replaced"):
        (root / name).write_text("x")
    await serve(home, root, root / "d")
    await open_and_close(home, root / "kept", (await listed(home, root))[b"kept"])
    for path in (root / "kept", root / "replaced", root / "d", root):
        os.utime(path, ns=(0, date_ns))
    assert (root / "kept").stat().st_mtime_ns == date_ns

    home.drain()
    shown = await listed(home, root)
    assert {shown[name].mtime_ns for name in (b"kept", b"replaced", b"d")} == {wire_ns(date_ns)}
    await open_and_close(home, root / "kept", shown[b"kept"])
    home.drain()
    await home.recheck_settled()

    attr = msgspec.structs.replace(shown[b"kept"], mode=stat.S_IFREG | 0o600)
    job = Job(home, root).write("replaced", b"new").write("d/new", b"new").change("kept", attr, content=False)
    await job.end()
    assert (root / "replaced").read_bytes() == (root / "d/new").read_bytes() == b"new"
    kept = (root / "kept").stat()
    assert (stat.S_IMODE(kept.st_mode), kept.st_mtime_ns) == (0o600, date_ns)
    await Job(home, root).delete("kept", "d/new").end()
    assert staged_names(root) == []
    home.close()
    assert sorted(os.listdir(root)) == ["d", "replaced"]


async def open_and_close(home: MasterTree, path: Path, attr: Attr) -> None:
    """Do as a mirror that reads a file in the version that was listed."""
    fd, _ = await home.open_file(tree_path(path), attr.size, attr.mtime_ns)
    os.close(fd)


async def test_a_time_of_this_age_is_said_as_it_is() -> None:
    for at_ns in (time.time_ns(), 0, -1, 2**63, -(2**63), 2**64 - 1):
        assert wire_ns(at_ns) == at_ns
