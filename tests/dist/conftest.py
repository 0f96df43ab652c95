"""Build the files of a release twice, as `make dist` does, and give tests places to install them.

Both builds run at once. They differ in all that must not show in the bytes: directory, time zone,
umask, locale, and the seed of Python's hashes. They compress less than `make dist`, to be quick.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.e2e.places import CHECKOUT, IS_ROOT, Place, place

BUILD_LIMIT_S = 200
OTHER_SURROUNDINGS = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "1"}

MakePlace = Callable[[str], AbstractContextManager[Place]]


@pytest.fixture(scope="session")
def builds() -> Iterator[tuple[Path, Path]]:
    """Return the directories of two builds of one commit."""
    with tempfile.TemporaryDirectory(prefix="termite-dist-") as scratch:
        os.chmod(scratch, 0o755)  # other users install from there
        first, second = Path(scratch) / "first", Path(scratch) / "second"
        running = [_start_build(first, 0o022, {}), _start_build(second, 0o077, OTHER_SURROUNDINGS)]
        for build in running:
            said, _ = build.communicate(timeout=BUILD_LIMIT_S)
            assert build.returncode == 0, said
        yield first, second


def _start_build(directory: Path, umask: int, surroundings: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "packing", str(directory), "--level", "0"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "tools"), **surroundings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        umask=umask,
    )


@pytest.fixture
def make_place() -> Iterator[MakePlace]:
    """Make a place of a kind of place.sh. It lies where homes are, because jobs do not see /tmp."""
    base = Path(tempfile.mkdtemp(prefix="termite-dist-", dir="/home" if IS_ROOT else Path.home()))
    base.chmod(0o755)

    @contextmanager
    def make(kind: str) -> Iterator[Place]:
        with place(kind, base / kind, uuid.uuid4().hex) as where:
            yield where

    yield make
    subprocess.run(["chmod", "-Rf", "u+rwX", base], check=False)
    shutil.rmtree(base)
