"""Test that the disk is reached without following a symlink, in one system call or step by step."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.engine import beneath
from termite.engine.errors import FsError
from termite.engine.tree.tree_disk import Disk


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/b/file").write_bytes(b"content")
    (tmp_path / "to-b").symlink_to("a/b")
    (tmp_path / "a/b/to-file").symlink_to("file")
    (tmp_path / "a/out").symlink_to("/")
    os.mkfifo(tmp_path / "a/fifo")
    return tmp_path


@pytest.fixture(params=["at once", "by steps"])
def found(top: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    if request.param == "by steps":  # as where openat2 is forbidden
        monkeypatch.setattr(beneath, "_open_at_once", lambda *_: -1)
    opened = Disk(os.fsencode(top))
    yield opened
    opened.close()


@pytest.mark.parametrize("path", [b"", b"a", b"a/b/c"])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_PATH])
def test_a_directory_is_opened(found: Disk, top: Path, path: bytes, flags: int) -> None:
    fd = found.open_directory(path, flags)
    try:
        assert os.stat(fd).st_ino == (top / os.fsdecode(path)).stat().st_ino
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_a_file_is_opened(found: Disk) -> None:
    fd = found.open_file(b"a/b/file")
    with open(fd, "rb") as file:
        assert file.read() == b"content"
        assert not os.get_inheritable(fd)


def test_a_fifo_is_not_waited_for(found: Disk) -> None:
    fd = found.open_file(b"a/fifo")
    try:
        assert stat.S_ISFIFO(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", [b"to-b", b"to-b/c", b"a/out/etc", b"a/b/file", b"a/b/file/x"])
def test_what_is_no_directory_is_not_passed(found: Disk, path: bytes) -> None:
    with pytest.raises(OSError) as caught:
        found.open_directory(path)
    assert caught.value.errno == errno.ENOTDIR


def test_no_file_is_opened_by_a_symlink(found: Disk) -> None:
    with pytest.raises(OSError) as caught:
        found.open_file(b"a/b/to-file")
    assert caught.value.errno == errno.ELOOP
    with pytest.raises(OSError) as caught:
        found.open_file(b"to-b/file")
    assert caught.value.errno == errno.ENOTDIR


def test_what_is_not_there_is_said(found: Disk) -> None:
    with pytest.raises(FileNotFoundError):
        found.open_directory(b"a/none/c")
    with pytest.raises(FileNotFoundError):
        found.open_file(b"a/none")


@pytest.mark.parametrize("path", [b"..", b"a/../a", b"/a", b"a//b", b"a/.", b"a\0b"])
def test_what_is_no_path_is_refused(found: Disk, path: bytes) -> None:
    with pytest.raises(FsError):
        found.open_directory(path)
    with pytest.raises(FsError):
        found.open_file(path)


def test_nothing_stays_open(found: Disk) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for path in (b"a/b/c", b"to-b/c", b"a/none", b"a/b/file"):
        with contextlib.suppress(OSError):
            os.close(found.open_directory(path))
    assert set(os.listdir("/proc/self/fd")) == before


def test_one_call_is_enough(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expect a kernel of 5.6 or later, which the tests need for other reasons as well."""

    def by_steps(*_: object) -> int:
        pytest.fail("it was opened step by step")

    monkeypatch.setattr(beneath, "_open_by_steps", by_steps)
    opened = Disk(os.fsencode(top))
    try:
        os.close(opened.open_directory(b"a/b/c", os.O_PATH))
        os.close(opened.open_file(b"a/b/file"))
    finally:
        opened.close()
