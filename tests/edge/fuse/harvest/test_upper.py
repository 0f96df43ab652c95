"""An upper layer is read as it is, or refused, if somebody exchanges real files in it.

The callback that says what was there before (`lower`) is called between listing and reading.
Therefore a test exchanges files in it, at that very moment, as another job could.
"""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from termite.engine.errors import NotAtRest, Retryable
from termite.engine.model import Attr
from termite.engine.private_directories import remove_tree
from termite.engine.store.cas import Cas
from termite.engine.wire.protocol.messages import INLINE_BYTES
from termite.fuse.harvest.collect import collect
from termite.fuse.harvest.upper_layer import UpperLayer, open_upper
from termite.fuse.view.comparison import Homes

SIZES = [pytest.param(100, id="small"), pytest.param(INLINE_BYTES + 1, id="large")]


@pytest.fixture
def upper(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "upper/p/d").mkdir(parents=True)
    yield tmp_path / "upper"
    remove_tree(tmp_path / "upper")  # some are too deep for what pytest removes with


@pytest.fixture
def cas(tmp_path: Path) -> Cas:
    return Cas(tmp_path / "cas")


@pytest.fixture(params=SIZES)
def victim(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Make a private file of the worker's user, as large as the job's file."""
    (tmp_path / "home").mkdir(0o700)
    path = tmp_path / "home" / "f"
    path.write_bytes(b"S" * request.param)
    path.chmod(0o600)
    return path


def opened(upper: Path) -> UpperLayer:
    layer = open_upper(upper)
    assert layer is not None
    return layer


def exchange(name: Path, other: Callable[[Path], object]) -> None:
    """Put what `other` makes in the place of `name`, in one step, as rename does."""
    other(name.with_name("exchanged"))
    os.rename(name.with_name("exchanged"), name)


def to_symlink(file: Path, victim: Path) -> None:
    exchange(file, lambda new: new.symlink_to(victim))


def to_hard_link(file: Path, victim: Path) -> None:
    exchange(file, lambda new: new.hardlink_to(victim))


def to_another_file(file: Path, victim: Path) -> None:
    exchange(file, lambda new: new.write_bytes(victim.read_bytes()))


def to_fifo(file: Path, victim: Path) -> None:
    exchange(file, os.mkfifo)


def to_directory(file: Path, victim: Path) -> None:
    file.unlink()
    file.mkdir()


def to_nothing(file: Path, victim: Path) -> None:
    file.unlink()


def to_longer(file: Path, victim: Path) -> None:
    with open(file, "ab") as end:
        end.write(b"more")


def to_written_in_place(file: Path, victim: Path) -> None:
    with open(file, "r+b") as start:
        start.write(b"other")


def to_other_mode(file: Path, victim: Path) -> None:
    file.chmod(0o4755)


def to_directory_elsewhere(file: Path, victim: Path) -> None:
    file.unlink()
    file.parent.rmdir()
    file.parent.symlink_to(victim.parent)


EXCHANGES = [
    to_symlink,
    to_hard_link,
    to_another_file,
    to_fifo,
    to_directory,
    to_nothing,
    to_longer,
    to_written_in_place,
    to_other_mode,
    to_directory_elsewhere,
]


@pytest.mark.attack
@pytest.mark.parametrize("change", EXCHANGES, ids=lambda change: change.__name__)
def test_a_file_that_was_exchanged_after_the_listing_refuses_the_result(
    upper: Path, cas: Cas, victim: Path, change: Callable[[Path, Path], None]
) -> None:
    file = upper / "p/d/f"
    file.write_bytes(b"r" * victim.stat().st_size)
    os.utime(file, (1, 1))
    before = victim.stat()

    def lower(path: bytes) -> Attr | None:
        if path == b"p/d/f":
            change(file, victim)
        return Attr(0o40755, 0, 0) if path in (b"p", b"p/d") else None

    with pytest.raises(NotAtRest):
        trio.run(collect, upper, Homes(b"p"), lower, cas)
    assert cas.statistics()["added"] == 0, "nothing of it is stored"
    after = victim.stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_ino) == (before.st_mode, before.st_mtime_ns, before.st_ino)
    assert victim.read_bytes() == b"S" * before.st_size


def test_a_file_at_rest_stays_as_it_is_and_is_brought_home(upper: Path, cas: Cas, victim: Path) -> None:
    file = upper / "p/d/f"
    file.write_bytes(b"r" * victim.stat().st_size)
    file.chmod(0o600)
    before = file.stat()

    def lower(path: bytes) -> Attr | None:
        return Attr(0o40755, 0, 0) if path in (b"p", b"p/d") else None

    harvested = trio.run(collect, upper, Homes(b"p"), lower, cas)
    (change,) = (change for change in harvested.changes if change.path == b"p/d/f")
    assert change.attr is not None and change.attr.digest is not None
    blob = cas.path(change.attr.digest)
    assert blob is not None and blob.read_bytes() == file.read_bytes()
    after = file.stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_nlink) == (before.st_mode, before.st_mtime_ns, 1)
    assert blob.stat().st_ino != after.st_ino, "whoever has the job's file open does not have the blob"


@pytest.mark.attack
@pytest.mark.parametrize("others", ["directory", "symlink", "nothing", "file"])
def test_a_directory_that_was_exchanged_after_its_parent_was_listed_is_not_followed(
    upper: Path, tmp_path: Path, others: str
) -> None:
    (tmp_path / "home/id_ed25519").mkdir(parents=True)
    walk = opened(upper).entries(Homes(b"p"))
    assert next(walk).path == b"p"  # p/d is listed, and is next
    (upper / "p/d").rmdir()
    match others:
        case "directory":  # is one of the job's own
            (upper / "p/d").mkdir()
            assert [entry.path for entry in walk] == [b"p/d"]
            return
        case "symlink":
            (upper / "p/d").symlink_to(tmp_path / "home")
        case "file":
            (upper / "p/d").touch()
    with pytest.raises(NotAtRest):
        list(walk)


@pytest.mark.attack
def test_a_file_that_became_a_directory_after_its_parent_was_listed_is_refused(upper: Path) -> None:
    (upper / "p/f").touch()
    walk = opened(upper).entries(Homes(b"p"))
    assert [next(walk).path for _ in range(2)] == [b"p", b"p/d"]
    (upper / "p/f").unlink()
    (upper / "p/f").mkdir()
    with pytest.raises(NotAtRest):
        list(walk)


def test_entries_are_what_is_on_disk_parents_first_in_the_order_of_their_names(upper: Path) -> None:
    for name in ("a", "c/x/y", "c/z", "e", "tmp/not-read", "p/f", "p/z", "q.d/f", "q/f"):
        (upper / name).parent.mkdir(parents=True, exist_ok=True)
        (upper / name).write_bytes(os.fsencode(name))
    (upper / "p/link").symlink_to("/nowhere/else")
    os.mkfifo(upper / "p/fifo", 0o640)
    os.link(upper / "a", upper / "p/a")
    entries = list(opened(upper).entries(Homes(b"p")))
    names = b"a c c/x c/x/y c/z e p p/a p/d p/f p/fifo p/link p/z q q/f q.d q.d/f tmp"
    assert [entry.path for entry in entries] == names.split()
    for entry in entries:
        status = os.lstat(os.path.join(os.fsencode(upper), entry.path))
        expected = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino, status.st_nlink)
        assert (entry.mode, entry.size, entry.mtime_ns, entry.inode, entry.nlink) == expected
        assert entry.target == (b"/nowhere/else" if stat.S_ISLNK(entry.mode) else b"")


def test_what_overlayfs_has_noted_is_read_from_what_was_opened(upper: Path) -> None:
    (upper / "p/new").touch()
    (upper / "p/old").touch()
    os.setxattr(upper / "p/old", "user.overlay.origin", b"")
    os.setxattr(upper / "p/d", "user.overlay.opaque", b"y")
    entries = {entry.path: entry for entry in opened(upper).entries(Homes(b"p"))}
    assert [path for path, entry in entries.items() if entry.opaque] == [b"p/d"]
    assert [path for path, entry in entries.items() if entry.copied_up] == [b"p/old"]


def make_deep(top: Path, depth: int) -> None:
    here = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=here))
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_a_deep_tree_takes_two_descriptors_and_gives_them_back(upper: Path) -> None:
    make_deep(upper / "p/d", 1000)
    before = len(os.listdir("/proc/self/fd"))
    layer = opened(upper)
    opened_at_once = [len(os.listdir("/proc/self/fd")) for _ in layer.entries(Homes(b"p"))]
    assert (len(opened_at_once), max(opened_at_once) - before) == (2002, 2)
    layer.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_path_longer_than_anybody_can_open_is_left_to_the_users_machine(upper: Path) -> None:
    make_deep(upper / "p/d", 2100)
    with pytest.raises(Retryable, match="too long"):
        list(opened(upper).entries(Homes(b"p")))


def test_nothing_is_opened_where_nothing_was_written(upper: Path) -> None:
    (upper / "p/d").rmdir()
    (upper / "p").rmdir()
    assert open_upper(upper) is None
