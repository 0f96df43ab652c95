"""Hostile jobs against a real mirror process.

This module has the users who run it, a place in which it is attacked, and the start of a job."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from termite.engine.private_directories import remove_tree
from termite.engine.wire.protocol.messages import Ran
from tests.e2e.mirrors import FakeMaster, Starter

HERE = Path(__file__).parent
IS_ROOT = os.geteuid() == 0
NOBODY = 61000  # any id that no one has
LIMIT_S = 60.0

# Whose the worker is. Who runs the tests is an ordinary user, or root, who can be both.
WORKERS = {"an ordinary user's worker": Starter()}
if IS_ROOT:
    WORKERS = {"an ordinary user's worker": Starter(user=NOBODY), "root's worker": Starter(uid=NOBODY)}

# A real kernel without Landlock, as far as a process can tell: a filter answers ENOSYS to the
# system call.
WITHOUT_LANDLOCK = ("/usr/bin/python3", str(HERE / "without_landlock.py"))


def without_landlock(worker: Starter) -> Starter:
    return replace(worker, through=WITHOUT_LANDLOCK)


@contextmanager
def place_of(worker: Starter) -> Iterator[Path]:
    """Make a directory with a `project` and a `home` whose `key` only the worker's user may read.

    The directory is not in /tmp, because jobs do not see the files there.
    """
    place = Path(tempfile.mkdtemp(prefix="termite-attack-", dir="/var/tmp"))
    try:
        place.chmod(0o755)
        (place / "project").mkdir()
        (place / "home").mkdir()
        (place / "home/key").write_text("PRIVATE KEY\n" + "x" * 100_000)
        (place / "home/key").chmod(0o600)
        (place / "home").chmod(0o500)
        for path in (place / "home/key", place / "home"):
            os.chown(path, worker.owner(), worker.owner())
        yield place
    finally:
        remove_tree(place)
    assert not place.exists()


async def attack(master: FakeMaster, script: str, *words: str, output: list[bytes], **fields: Any) -> Ran:
    """Run a script of this directory as a job."""
    text = (HERE / script).read_text()
    return await master.run("/usr/bin/python3", "-c", text, *words, output=output, **fields)


def said(output: list[bytes]) -> str:
    return b"".join(chunk[1:] for chunk in output).decode(errors="replace")


def verdict(broken: bool, what: str) -> str:
    """Print what came of an attack. Return the word that was printed."""
    word = "BROKEN" if broken else "HELD"
    print(f"{word}: {what}", file=sys.stderr)
    return word
