"""Find what a termite that has ended left: processes, mounts, sockets and temporary files."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.places import CHECKOUT, Place
from tests.e2e.waiting import wait_until


@dataclass(frozen=True, slots=True)
class Leftovers:
    """The things that were left. If all fields are empty, nothing was left."""

    processes: tuple[str, ...]
    mounts: tuple[str, ...]
    files: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.processes or self.mounts or self.files)


def assert_nothing_left(where: Place, *trees: Path) -> None:
    """Wait for the end of the last process, then check that nothing else is left."""
    wait_until(
        lambda: not list(_processes(where)), "all processes of termite are gone", lambda: str(look(where, *trees))
    )
    left = look(where, *trees)
    assert not left, left


def look(where: Place, *trees: Path) -> Leftovers:
    return Leftovers(tuple(_processes(where)), tuple(_mounts(where)), tuple(_files(where, trees)))


def _processes(where: Place) -> Iterator[str]:
    """Yield each process, in any namespace, whose environment has the mark of this place.

    The processes of the tests do not have the mark.
    """
    mark = f"E2E_MARK={where.env['E2E_MARK']}\0".encode()
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and directory.name != str(os.getpid()):
            try:
                if mark in (directory / "environ").read_bytes() + b"\0":
                    command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    yield f"{directory.name} {command.strip()}"
            except OSError:
                continue


def _mounts(where: Place) -> Iterator[str]:
    """Yield the FUSE and overlay mounts of any process that name a directory of this place."""
    seen: set[str] = set()
    for directory in Path("/proc").iterdir():
        try:
            seen.update((directory / "mountinfo").read_text().splitlines() if directory.name.isdigit() else ())
        except OSError:
            continue
    for line in sorted(seen):
        if (" - fuse" in line or " - overlay" in line) and str(where.base) in line:
            yield line


def _files(where: Place, trees: tuple[Path, ...]) -> Iterator[str]:
    """Yield sockets and staging directories in the trees, and temporary files of the place."""
    for tree in trees:
        for pattern in (".termite-*", "**/.termite-*"):
            yield from (str(path) for path in tree.glob(pattern))
    for temporary in (Path("/tmp"), Path("/var/tmp")) if where.holder else ():
        for name in sorted(os.listdir(f"/proc/{where.holder}/root{temporary}")):
            if (temporary / name) not in (*where.base.parents, CHECKOUT, *CHECKOUT.parents):
                yield str(temporary / name)
