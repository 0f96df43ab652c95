"""Provide the native programs, and a master's end of the launcher's socket."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.engine.host.native_programs import native_program
from tests.native.fake_master import FakeMaster
from tests.native.sandboxes import USERS, Sandboxes, sandboxes_of, small_base


@pytest.fixture(scope="session")
def launcher() -> Path:
    return native_program("termite")


@pytest.fixture(scope="session")
def preload_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy, because LD_PRELOAD ends at spaces, which the path of a checkout may have."""
    return Path(shutil.copy(native_program("libtermite-exec.so"), tmp_path_factory.mktemp("library")))


@pytest.fixture(scope="session")
def sandbox_program() -> Path:
    return native_program("termite-sandbox")


@pytest.fixture(scope="module")
def base(sandbox_program: Path) -> Iterator[Path]:
    """Make what the sandboxes of a module share: their lower layer, scratch and programs."""
    with small_base(sandbox_program) as base:
        yield base


@pytest.fixture(scope="module", params=USERS)
def sandboxes(base: Path, request: pytest.FixtureRequest) -> Sandboxes:
    return sandboxes_of(base, request.param)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory to build in, without the caller's settings of termite."""
    for name in [name for name in os.environ if name.startswith("TERMITE_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # a directory that is closed to us would change messages
    tree = tmp_path / "tree"
    tree.mkdir()
    return tree


@pytest.fixture
def master(tree: Path) -> Iterator[FakeMaster]:
    with FakeMaster(tree / ".termite-socket") as master:
        yield master
