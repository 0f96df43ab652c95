"""Real trees: a file that the master names is written below one directory, or not at all."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termite.engine.model import Attr
from termite.engine.store.cas import Cas
from termite.fuse.layers.real_tree import RealTree, can_be_real

NS = 10**18 + 5
FILE = Attr(stat.S_IFREG | 0o4751, 4, NS)
LINK = Attr(stat.S_IFLNK | 0o777, 1, NS, target=b"/etc")
DIRECTORY = Attr(stat.S_IFDIR | 0o2750, 0, NS)

Write = Callable[[RealTree, bytes], object]
WRITES: dict[str, Write] = {
    "file": lambda real, path: real.make_file(path, b"text", FILE),
    "empty file": lambda real, path: real.make_file_from_store(path, None, None, Attr(FILE.mode, 0, NS)),  # type: ignore[arg-type]
    "copy": lambda real, path: real.copy_file(path, real, FILE),
    "hard link": lambda real, path: real.link_file(path, real),
    "symlink": lambda real, path: real.make_symlink(path, LINK),
    "directory": lambda real, path: real.make_directory(path),
    "whiteout": lambda real, path: real.make_whiteout(path),
    "attributes": lambda real, path: real.set_directory_attributes(path, DIRECTORY),
    "xattr": lambda real, path: real.set_xattr(path, "user.termite", b""),
}


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").write_text("kept")
    (tmp_path / "top").mkdir()
    (tmp_path / "top/there").write_text("there")
    (tmp_path / "top/link").symlink_to(tmp_path / "outside")
    (tmp_path / "top/file-link").symlink_to(tmp_path / "outside/kept")
    return tmp_path / "top"


@pytest.fixture
def real(top: Path) -> Iterator[RealTree]:
    with RealTree(os.fsencode(top)) as real:
        yield real


def state(directory: Path) -> list[tuple[str, int, int, bytes]]:
    return [
        (str(path), path.lstat().st_mode, path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted([directory, *directory.rglob("*")])
    ]


@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize(
    "path",
    ["{outside}/x", "/{outside}/kept", "../outside/x", "link/x", "link/kept", "file-link", "link", "a\0b", "..", "."],
)
def test_nothing_outside_is_touched_by_any_path(real: RealTree, top: Path, kind: str, path: str) -> None:
    outside = top.parent / "outside"
    before, here = state(outside), state(top)
    with pytest.raises((OSError, ValueError)):
        WRITES[kind](real, os.fsencode(path.format(outside=outside)))
    assert (state(outside), state(top)) == (before, here)


@pytest.mark.parametrize("kind", ["file", "empty file", "symlink", "directory", "whiteout"])
def test_what_exists_is_not_written_to(real: RealTree, top: Path, kind: str) -> None:
    with pytest.raises(FileExistsError):
        WRITES[kind](real, b"there")
    assert (top / "there").read_text() == "there"


def test_a_file_never_gets_setuid_or_setgid_and_a_directory_has_all_of_its_mode(real: RealTree, top: Path) -> None:
    cas = Cas(top.parent / "cas")
    real.make_directory(b"d")
    for mode in range(0o10000):
        attr = Attr(stat.S_IFREG | mode, 0, NS)
        assert can_be_real(b"d/f", attr) == (not mode & 0o6000)
    real.make_file(b"d/f", b"text", Attr(stat.S_IFREG | 0o7751, 4, NS))
    real.make_file_from_store(b"d/g", cas, cas.put(b"text"), Attr(stat.S_IFREG | 0o6751, 4, NS))
    real.set_directory_attributes(b"d", DIRECTORY)
    assert (top / "d/f").stat().st_mode == stat.S_IFREG | 0o1751
    assert (top / "d/g").stat().st_mode == stat.S_IFREG | 0o751
    assert (top / "d").stat().st_mode == DIRECTORY.mode
    assert (top / "d").stat().st_mtime_ns == (top / "d/f").stat().st_mtime_ns == NS


@given(path=st.text("a./\0", max_size=8).map(str.encode))
def test_whatever_the_path_is_it_leads_down_or_nowhere(tmp_path_factory: pytest.TempPathFactory, path: bytes) -> None:
    base = tmp_path_factory.mktemp("real")
    (base / "top").mkdir()
    with RealTree(os.fsencode(base / "top")) as real:
        try:
            real.make_file(path, b"text", FILE)
        except OSError:
            assert not list((base / "top").iterdir())
    assert [entry.name for entry in base.iterdir()] == ["top"]
