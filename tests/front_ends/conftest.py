"""The front ends are tested on the same clusters as the whole system."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.conftest import MakePlace, make_place, user
from tests.e2e.places import CHECKOUT, COMMANDS

PATCHES = CHECKOUT / "patches" / "make-4.3"
CACHE = CHECKOUT / "build"
BUILD_TOOLS = {"autoreconf": "autoconf", "automake": "automake", "autopoint": "autopoint", "pkg-config": "pkg-config"}

# With the tools of .venv, as its user has: what is called from there is shown to jobs.
PATH = f"/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:{COMMANDS}"

__all__ = ["make_place", "user"]


@pytest.fixture(scope="module")
def shared_tree(make_place: MakePlace) -> Iterator[Tree]:
    """A tree of an ordinary user with an embedded cluster, for all tests of a module."""
    with make_place("ordinary") as where, embedded(new_tree(where), env={"PATH": PATH}) as tree:
        yield tree


@pytest.fixture
def tree(shared_tree: Tree, request: pytest.FixtureRequest) -> Tree:
    """A fresh directory of this test in the shared tree."""
    return shared_tree.subtree(f"{abs(hash(request.node.nodeid)):x}")


@pytest.fixture(scope="session")
def source() -> Path:
    """Debian's make-dfsg 4.3, unpacked."""
    if not shutil.which("apt-get") or "VERSION_CODENAME=bookworm" not in Path("/etc/os-release").read_text():
        pytest.skip("make-dfsg 4.3 is the source package of Debian 12")
    fetch = [sys.executable, str(CHECKOUT / "tools" / "sources.py"), "make-dfsg", str(CACHE / "sources")]
    return Path(_output_of(fetch).strip())


@pytest.fixture(scope="session")
def patched_make(source: Path) -> Path:
    """The patched make, built once for each version of the patch."""
    missing = [package for tool, package in BUILD_TOOLS.items() if not shutil.which(tool)]
    if missing:
        pytest.skip(f"building Debian's make needs: apt-get install {' '.join(missing)}")
    inputs = [*sorted(PATCHES.glob("*.patch")), PATCHES / "build.sh"]
    version = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()[:16]
    prefix = CACHE / f"make-4.3-{version}"
    make = prefix / "bin" / "make"
    if not make.exists():
        _output_of([str(PATCHES / "build.sh"), str(source), str(prefix)])
    return make


def _output_of(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout
