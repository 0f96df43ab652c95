"""A room whose calls are swept makes all of them through one module."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import termite

SWEPT = [
    "access",
    "chmod",
    "chown",
    "copy_file_range",
    "dup",
    "fchmod",
    "fchown",
    "fstat",
    "fstatvfs",
    "ftruncate",
    "getxattr",
    "lchown",
    "link",
    "listdir",
    "listxattr",
    "lstat",
    "makedirs",
    "mkdir",
    "mkfifo",
    "open",
    "pread",
    "pwrite",
    "read",
    "readlink",
    "remove",
    "rename",
    "replace",
    "rmdir",
    "scandir",
    "sendfile",
    "setxattr",
    "stat",
    "statvfs",
    "symlink",
    "truncate",
    "unlink",
    "utime",
    "walk",
    "write",
]
ASKING = [
    "exists",
    "getctime",
    "getmtime",
    "getsize",
    "isdir",
    "isfile",
    "islink",
    "ismount",
    "lexists",
    "realpath",
    "samefile",
]


def direct_calls(source: str) -> Iterator[str]:
    """Yield the calls of `os` and of `os.path` that ask the kernel for a file."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in SWEPT:
                yield f"{node.lineno}: os.{name}"
            case ast.Attribute(value=ast.Attribute(value=ast.Name(id="os"), attr="path"), attr=name) if name in ASKING:
                yield f"{node.lineno}: os.path.{name}"


@pytest.mark.parametrize("room", ["engine/tree", "engine/store"])
def test_a_room_asks_the_kernel_through_its_modules_of_calls_only(room: str) -> None:
    top = Path(termite.__file__).parent / room
    found = [
        f"{path.relative_to(top)}:{call}"
        for path in sorted(top.rglob("*.py"))
        if not path.name.endswith("_calls.py")
        for call in direct_calls(path.read_text())
    ]
    assert not found, "use look_calls, disk_calls or store_calls"


def test_the_check_sees_each_kind() -> None:
    assert list(direct_calls("import os\nos.open('x', 0)\nos.path.isdir('x')\nos.close(3)\nos.path.join('a')\n")) == [
        "2: os.open",
        "3: os.path.isdir",
    ]
