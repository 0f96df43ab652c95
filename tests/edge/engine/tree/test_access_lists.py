"""The access that a staged entry inherits is the access that the kernel gives to a new entry."""

import errno
import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.engine.tree.logic.access_lists import (
    ACCESS_LIST,
    DEFAULT_LIST,
    ENTRY,
    GROUP_OBJ,
    HEADER,
    MASK,
    OTHER,
    USER_OBJ,
    granted,
    requested_mode,
)

USER, GROUP, NO_ID = 0x02, 0x08, 0xFFFFFFFF


def access_list(
    user: int, group: int, other: int, named: tuple[tuple[int, int, int], ...] = (), mask: int = 7
) -> bytes:
    """Return a list; `named` has entries for users and groups, which need a mask."""
    entries = [(USER_OBJ, user, NO_ID), *(e for e in named if e[0] == USER), (GROUP_OBJ, group, NO_ID)]
    entries += [e for e in named if e[0] == GROUP]
    entries += [(MASK, mask, NO_ID)] if named else []
    return HEADER.pack(2) + b"".join(ENTRY.pack(*entry) for entry in [*entries, (OTHER, other, NO_ID)])


LISTS = [
    access_list(7, 7, 5),
    access_list(6, 4, 0),
    access_list(7, 5, 5, ((USER, 6, 1234),)),
    access_list(7, 0, 0, ((USER, 7, 1234), (GROUP, 6, 2000)), mask=6),
    access_list(5, 7, 1, ((GROUP, 7, 2000),), mask=3),
]


@pytest.fixture(params=LISTS, ids=range(len(LISTS)))
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, bytes]]:
    try:
        os.setxattr(tmp_path, DEFAULT_LIST, request.param)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            pytest.skip(f"{tmp_path} is on a file system without access control lists")
        raise
    before = os.umask(0o027)
    yield tmp_path, request.param
    os.umask(before)


def list_of(path: Path, name: str = ACCESS_LIST) -> bytes:
    try:
        return os.getxattr(path, name)
    except OSError as error:
        assert error.errno == errno.ENODATA
        return b""


def test_a_new_file_gets_what_the_kernel_gives(directory: tuple[Path, bytes]) -> None:
    where, acl = directory
    for mode in (0o666, 0o777, 0o600, 0o444, 0o640, 0):
        path = where / f"{mode:o}"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, mode))
        assert granted(acl, mode) == (list_of(path), stat.S_IMODE(path.stat().st_mode)), oct(mode)


def test_a_new_directory_gets_what_the_kernel_gives(directory: tuple[Path, bytes]) -> None:
    where, acl = directory
    (where / "d").mkdir()
    assert granted(acl, 0o777) == (list_of(where / "d"), stat.S_IMODE((where / "d").stat().st_mode))
    assert list_of(where / "d", DEFAULT_LIST) == acl


def test_a_mode_that_the_umask_has_cut_is_whole_again_and_no_other_one_is() -> None:
    for umask in (0o022, 0o002, 0o077, 0o027):
        assert requested_mode(stat.S_IFREG | 0o666 & ~umask, umask) & 0o7777 == 0o666
        assert requested_mode(stat.S_IFREG | 0o777 & ~umask, umask) & 0o7777 == 0o777
        assert requested_mode(stat.S_IFDIR | 0o777 & ~umask, umask) & 0o7777 == 0o777
    assert {requested_mode(stat.S_IFREG | mode, 0o022) & 0o7777 for mode in (0o600, 0o400, 0o700)} == {
        0o600,
        0o400,
        0o700,
    }
    for mode, umask in itertools.product(range(0o1000), (0o022, 0o077)):
        asked = requested_mode(stat.S_IFREG | mode, umask) & 0o7777
        assert asked == mode or (asked & ~umask == mode and asked in (0o666, 0o777))
