"""Test the front ends on the same clusters as the whole system."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sources import alone_in
from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.conftest import MakePlace, make_place, user
from tests.e2e.places import CHECKOUT, COMMANDS

CACHE = CHECKOUT / "build"
BUILD_TOOLS = {"autoreconf": "autoconf", "automake": "automake", "autopoint": "autopoint", "pkg-config": "pkg-config"}

# The variable that names a source of GNU make 3.82, which no package archive has. The source is the
# unpacked release, or a checkout of its tag.
SOURCE_382 = "TERMITE_MAKE382_SRC"
TODAY_382 = "0001-build-with-todays-glibc-and-gcc.patch"

# The PATH has the tools of .venv, as that of its user has. Jobs see what a user calls from there.
PATH = f"/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:{COMMANDS}"

__all__ = ["make_place", "user"]


@pytest.fixture(scope="module")
def shared_tree(make_place: MakePlace) -> Iterator[Tree]:
    """Yield a tree of an ordinary user with an embedded cluster, for all tests of a module."""
    with make_place("ordinary") as where, embedded(new_tree(where), env={"PATH": PATH}) as tree:
        yield tree


@pytest.fixture
def tree(shared_tree: Tree, request: pytest.FixtureRequest) -> Tree:
    """Return a fresh directory of this test in the shared tree."""
    return shared_tree.subtree(f"{abs(hash(request.node.nodeid)):x}")


@dataclass(frozen=True)
class Make:
    """A version of GNU make for which there is a patch."""

    version: tuple[int, int]
    source: Path
    stock: Path  # without MAKE_SHELL
    patched: Path


@pytest.fixture(scope="session")
def source() -> Path:
    """Return the unpacked source of Debian's make-dfsg 4.3."""
    if not shutil.which("apt-get") or "VERSION_CODENAME=bookworm" not in Path("/etc/os-release").read_text():
        pytest.skip("make-dfsg 4.3 is the source package of Debian 12")
    fetch = [sys.executable, str(CHECKOUT / "tools" / "sources.py"), "make-dfsg", str(CACHE / "sources")]
    return Path(_output_of(fetch).strip())


@pytest.fixture(scope="session", params=["4.3", "3.82"])
def make(request: pytest.FixtureRequest) -> Make:
    """Return each version, built once for each version of its patches."""
    if request.param == "4.3":
        debian: Path = request.getfixturevalue("source")
        return Make((4, 3), debian, Path("/usr/bin/make"), build_make("4.3", debian, STATIC="1"))
    source = source_382()
    return Make((3, 82), source, build_make("3.82", source, TODAY_382), build_make("3.82", source))


@pytest.fixture(scope="session")
def static_make(make: Make) -> Path:
    """Return the patched make, linked statically."""
    if make.version >= (4, 3):
        return make.patched.with_name("make-static")  # linked from the same objects, which saves half a minute
    return build_make("3.82", make.source, LDFLAGS="-static")


def source_382() -> Path:
    """Return the source that the user names, or skip the test if the user names none."""
    given = os.environ.get(SOURCE_382)
    if not given:
        pytest.skip(f"{SOURCE_382} names no source of GNU make 3.82 (no package archive has it)")
    source = Path(given).resolve()
    assert "[GNU make],[3.82]" in (source / "configure.in").read_text(), f"{source} is not GNU make 3.82"
    return source


def build_make(version: str, source: Path, *only: str, **env: str) -> Path:
    """Build make with its patches, or with those in `only`. `env` is for its configure script.

    The program is not optimised: its tests wait for shells.
    """
    missing = [package for tool, package in BUILD_TOOLS.items() if not shutil.which(tool)]
    if missing and not (source / "configure").exists():
        pytest.skip(f"building make of this source needs: apt-get install {' '.join(missing)}")
    patches = CHECKOUT / "patches" / f"make-{version}"
    inputs = b"".join(path.read_bytes() for path in [*sorted(patches.glob("*.patch")), patches / "build.sh"])
    key = hashlib.sha256(inputs + repr((source, only, env)).encode()).hexdigest()[:16]
    prefix = CACHE / f"make-{version}-{key}"
    program = prefix / "bin" / "make"
    with alone_in(CACHE):
        if not program.exists():
            _output_of([str(patches / "build.sh"), str(source), str(prefix), *only], {"CFLAGS": "-O0", **env})
    return program


def _output_of(command: list[str], env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout
