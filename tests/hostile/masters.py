"""A hostile master for a real mirror process, and a place where its deeds can be seen."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from termite.engine.private_directories import remove_tree
from termite.engine.wire.protocol.messages import OpenLease, Run
from tests.e2e.mirrors import FakeMaster, Starter

NOBODY = 61000  # any id that no one has

# A mirror belongs to the ordinary user who starts a worker, or to a user that root's worker has.
STARTERS = [pytest.param(Starter(), id="this-user")]
if os.getuid() == 0:
    STARTERS = [
        pytest.param(Starter(user=NOBODY), id="ordinary-users-worker"),
        pytest.param(Starter(uid=NOBODY), id="roots-worker"),
    ]

M = TypeVar("M", bound=msgspec.Struct)


def forged(message: M, **fields: Any) -> M:
    """Give a message fields that an honest sender could not give it."""
    copy = msgspec.structs.replace(message)
    for name, content in fields.items():
        msgspec.structs.force_setattr(copy, name, content)
    return copy


class HostileMaster(FakeMaster):
    """A fake master that sends whatever it is told to, `lease_fields` with its first request."""

    def __init__(self, project: Path, **lease_fields: Any) -> None:
        super().__init__(project)
        self._lease_fields = lease_fields

    def lease(self) -> OpenLease:
        return forged(super().lease(), **self._lease_fields)

    def finish(self, request: Run, fields: dict[str, Any]) -> Run:
        return forged(request, **fields)


@contextmanager
def attacked_place(starter: Starter) -> Iterator[Path]:
    """Make a `project`, a `place` for the mirror, and the user's home with a `secret`."""
    base = Path(tempfile.mkdtemp(prefix="termite-attack-", dir="/var/tmp"))
    try:
        base.chmod(0o755)
        for name in ("project", "place", "home"):
            (base / name).mkdir()
        (base / "home" / "secret").write_text("PRIVATE")
        (base / "home" / "secret").chmod(0o600)
        (base / "home").chmod(0o700)
        for path in (base / "place", base / "home", base / "home/secret"):
            os.chown(path, starter.owner(), starter.owner())
        yield base
    finally:
        remove_tree(base)
        if base.exists():
            shutil.rmtree(base)


def listed(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return all that is in a directory and below: mode, owner, content."""
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(directory))] = (status.st_mode, status.st_uid, content)
    return found
