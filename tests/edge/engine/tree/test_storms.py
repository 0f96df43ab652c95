"""Test that tree and journal agree with the disk after storms of local changes."""

import contextlib
import os
import random
import stat
import threading
import time
from pathlib import Path

import inotify_simple  # type: ignore[import-untyped]  # it has no annotations
import pytest

from termite.engine.model import Attr, Change
from termite.engine.paths import join, split
from termite.engine.tree.disk_follower import DiskFollower
from termite.engine.tree.hashes import Hashes
from termite.engine.tree.logic.attrs import AttrTree
from termite.engine.tree.logic.times import TICK_NS
from termite.engine.tree.logic.visibility import Exports
from termite.engine.tree.tree_disk import Disk

STORM_S = 0.15
DEPTH = 3
NAMES = ("a", "b", "c", "d")


class Follower:
    """A mirror that has loaded everything, and then only applies changes."""

    def __init__(self, tree: AttrTree, top: bytes) -> None:
        self.listings = {d: {n: s.attr for n, s in tree.listing(d).items()} for d in tree.served_within(top)}

    def apply(self, change: Change) -> None:
        parent, name = split(change.path)
        if parent not in self.listings:
            return
        if change.attr is None:
            self.drop(change.path)
        elif stat.S_ISDIR(change.attr.mode):
            self.listings.setdefault(change.path, {})
            self.listings[parent][name] = change.attr
        else:
            assert change.path not in self.listings, "a directory that becomes a file must be deleted first"
            self.listings[parent][name] = change.attr

    def drop(self, path: bytes) -> None:
        for directory in [d for d in self.listings if d == path or d.startswith(path + b"/")]:
            del self.listings[directory]
        parent, name = split(path)
        self.listings[parent].pop(name, None)


def made(root: Path) -> DiskFollower:
    path = os.fsencode(root)[1:]
    return DiskFollower(Disk(b"/"), Exports(path, (), (), ()), Hashes(None))


def serve_all(disk_follower: DiskFollower, directory: bytes) -> None:
    disk_follower.serve(directory)
    for name, seen in list(disk_follower.tree.listing(directory).items()):
        if seen.is_directory:
            serve_all(disk_follower, join(directory, name))


def plain(listings: dict[bytes, dict[bytes, Attr]]) -> dict[bytes, dict[bytes, tuple[int, int, int, bytes]]]:
    """Return the listings without digests and link counts, which no event reports."""
    return {
        directory: {name: (a.mode, a.size, a.mtime_ns, a.target) for name, a in sorted(listing.items())}
        for directory, listing in sorted(listings.items())
    }


def served(disk_follower: DiskFollower, top: bytes) -> dict[bytes, dict[bytes, tuple[int, int, int, bytes]]]:
    return plain(Follower(disk_follower.tree, top).listings)


def act(root: str, chance: random.Random) -> None:
    """Make one random change, as any local command could make it.

    Hard links are left out. A link that was made, written through and removed between two drains
    leaves no trace of the file that it named.
    """

    def path() -> str:
        return os.path.join(root, *(chance.choice(NAMES) for _ in range(chance.randint(1, DEPTH))))

    def write(mode: str) -> None:
        with open(path(), mode) as f:
            f.write("x" * chance.randint(0, 3))

    def remove_tree() -> None:
        top = path()
        for directory, subdirectories, files in os.walk(top, topdown=False):
            for name in files:
                os.unlink(os.path.join(directory, name))
            for name in subdirectories:
                child = os.path.join(directory, name)
                os.unlink(child) if os.path.islink(child) else os.rmdir(child)
        os.rmdir(top)

    actions = [
        (6, lambda: os.makedirs(path())),
        (4, lambda: os.rename(path(), path())),
        (4, lambda: write("w")),
        (2, lambda: write("a")),
        (3, lambda: os.unlink(path())),
        (2, remove_tree),
        (1, lambda: os.symlink(chance.choice(NAMES), path())),
        (1, lambda: os.chmod(path(), chance.choice((0o755, 0o700)))),
        (1, lambda: os.utime(path(), ns=(1, chance.randint(1, 9) * 10**18))),
    ]
    weights, does = zip(*actions, strict=True)
    with contextlib.suppress(OSError):  # a path is missing, or has an entry already: that is normal in a storm
        chance.choices(does, weights)[0]()


@pytest.mark.parametrize("drains_meanwhile", [False, True])
def test_after_a_storm_the_tree_is_what_is_on_disk(tmp_path: Path, drains_meanwhile: bool) -> None:
    top = os.fsencode(tmp_path)[1:]
    disk_follower = made(tmp_path)
    serve_all(disk_follower, top)
    follower = Follower(disk_follower.tree, top)
    for seed in range(8):
        chances = [random.Random(seed * 2 + i) for i in range(2)]
        end = time.monotonic() + STORM_S
        storm = [threading.Thread(target=rage, args=(str(tmp_path), chance, end)) for chance in chances]
        for thread in storm:
            thread.start()
        while drains_meanwhile and any(thread.is_alive() for thread in storm):
            for change in disk_follower.drain():
                follower.apply(change)
        for thread in storm:
            thread.join()
        for change in disk_follower.drain():
            follower.apply(change)
        fresh = made(tmp_path)
        serve_all(fresh, top)
        assert served(disk_follower, top) == served(fresh, top)
        assert plain(follower.listings) == served(fresh, top)
        assert len(disk_follower.watches) == len(fresh.watches)
        fresh.watches.close()


def rage(root: str, chance: random.Random, end: float) -> None:
    while time.monotonic() < end:
        act(root, chance)


def test_a_queue_that_overflows_costs_a_rescan_and_nothing_else(tmp_path: Path) -> None:
    top = os.fsencode(tmp_path)[1:]
    (tmp_path / "sub").mkdir()
    disk_follower = made(tmp_path)
    serve_all(disk_follower, top)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for _ in range(limit // 2 + 2):  # two names in turn, so that events are not merged
        os.utime(tmp_path)
        os.utime(tmp_path / "sub")
    (tmp_path / "sub" / "unnoticed").write_text("x")
    disk_follower.drain()
    assert disk_follower.rescans == 1
    assert b"unnoticed" in disk_follower.tree.listing(top + b"/sub")
    (tmp_path / "sub" / "unnoticed").unlink()
    disk_follower.drain()
    assert b"unnoticed" not in disk_follower.tree.listing(top + b"/sub")


def test_what_was_written_after_the_watches_were_asked_can_have_been_written_again(tmp_path: Path) -> None:
    """Only the watches report a second write, however late: the stamp may not show it."""
    disk_follower = made(tmp_path)
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    (tmp_path / "before" / "f").write_text("x")
    time.sleep(3 * TICK_NS / 1e9)  # times of files are those of the kernel's ticks
    disk_follower.drain()
    (tmp_path / "after" / "f").write_text("x")
    time.sleep(3 * TICK_NS / 1e9)
    racy = {}
    for directory in (b"before", b"after"):
        top = join(os.fsencode(tmp_path)[1:], directory)
        disk_follower.serve(top)
        seen = disk_follower.tree.seen(join(top, b"f"))
        assert seen is not None
        racy[directory] = seen.racy
    assert racy == {b"before": False, b"after": True}


@pytest.mark.logs("watch-limit-reached")
def test_without_watches_every_drain_lists_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, path: object, mask: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inotify_simple.INotify, "add_watch", full)
    top = os.fsencode(tmp_path)[1:]
    (tmp_path / "sub").mkdir()
    disk_follower = made(tmp_path)
    serve_all(disk_follower, top)
    follower = Follower(disk_follower.tree, top)
    chance = random.Random(1)
    for _ in range(300):
        act(str(tmp_path), chance)
        for change in disk_follower.drain():
            follower.apply(change)
    fresh = made(tmp_path)
    serve_all(fresh, top)
    assert served(disk_follower, top) == served(fresh, top) == plain(follower.listings)
