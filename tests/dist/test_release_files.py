"""The files of a release: they install on a bare machine, they work there, and they are reproducible.

All tests are in one file, because a parallel run would build once for each file.
"""

import base64
import csv
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from packing.product_tree import copy_packages
from packing.programs import is_elf, needed_libraries
from packing.release import PYTHON
from termite import __version__
from tests.dist.conftest import MakePlace
from tests.e2e.cluster import HOST, Daemon, daemon, free_port, new_secret, new_tree
from tests.e2e.places import CHECKOUT, Place
from tests.e2e.waiting import wait_until

pytestmark = pytest.mark.timeout(300)  # the first test of a run waits for both builds
SHELL_TOOLS = ("sh", "dirname", "readlink")  # all of the system that the bundle's scripts start
PROGRAMS = {"termite", "termite-make", "termite-sandbox", "libtermite-exec.so"}


def only(directory: Path, pattern: str) -> Path:
    """Return the one file of a build that matches."""
    (found,) = directory.glob(pattern)
    return found


def test_two_builds_are_equal(builds: tuple[Path, Path]) -> None:
    first, second = ({path.name: digest(path) for path in directory.iterdir()} for directory in builds)
    assert first == second
    assert {Path(name).suffix for name in first} == {".whl", ".xz"}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_wheel_has_the_native_programs_and_says_which_glibc_they_need(builds: tuple[Path, Path]) -> None:
    path = only(builds[0], "*.whl")
    name, version, *_, platform = path.stem.split("-")
    assert (name, version) == ("termite", __version__)
    assert platform.startswith("manylinux_2_")
    with zipfile.ZipFile(path) as wheel:
        contents = {entry: wheel.read(entry) for entry in wheel.namelist()}
    assert {f"termite-{version}.data/scripts/{program}" for program in PROGRAMS} <= contents.keys()
    assert f"Tag: py3-none-{platform}\n" in contents[f"termite-{version}.dist-info/WHEEL"].decode()
    needed = [line for content in contents.values() for line in glibc_versions(content)]
    assert max(needed) == tuple(map(int, platform.split("_")[1:3]))
    recorded = {row[0]: row[1] for row in csv.reader(contents[f"termite-{version}.dist-info/RECORD"].decode().split())}
    assert recorded.keys() == contents.keys()
    for entry, content in contents.items():
        hashed = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        assert recorded[entry] in ("", f"sha256={hashed}")


def glibc_versions(content: bytes) -> list[tuple[int, ...]]:
    """Return the versions of glibc that the symbols of a shared library ask for."""
    is_dynamic = content[:4] == b"\x7fELF" and b"\0libc.so.6\0" in content
    words = [word for word in content.split(b"\0") if word.startswith(b"GLIBC_2.")] if is_dynamic else []
    return [tuple(map(int, word[6:].split(b".")[:2])) for word in words]


def test_a_wheel_in_a_new_venv_builds_with_a_worker_of_its_own(
    builds: tuple[Path, Path], make_place: MakePlace
) -> None:
    with make_place("ordinary") as where:
        venv = where.base / "venv"
        subprocess.run([f"/usr/bin/{PYTHON}", "-m", "venv", "--without-pip", str(venv)], check=True)
        copy_packages(venv / "lib" / PYTHON / "site-packages")
        # Without --no-deps: pip makes sure that the requirements are there.
        install = ["install", "-q", "--disable-pip-version-check", "--no-index", "--no-compile"]
        pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python3")]
        subprocess.run([*pip, *install, str(only(builds[0], "*.whl"))], check=True)
        tree = new_tree(where)
        tree.write("Makefile", "out: in\n\tcp in out\n")
        tree.write("in", "content\n")
        env = {"TERMITE_LOCAL": "never", "TERMITE_SHORT": "0"}
        try:
            made = where.run([str(venv / "bin" / "termite-make")], tree.path, env=env)
            assert made.code == 0, made
            asked = where.run([str(venv / "bin" / "termite-ctl"), "jobs"], tree.path)
            assert b"cp in out" in asked.stdout, asked
        finally:
            where.run([str(venv / "bin" / "termite-ctl"), "shutdown"], tree.path)
        assert (tree.path / "out").read_text() == "content\n"


def unpacked(bundle: Path, where: Place) -> Path:
    """Unpack a bundle as the user of a place, in a directory that no build has known."""
    directory = where.base / "any directory"
    directory.mkdir()
    where_it_is = directory / bundle.name  # a place has a /tmp of its own
    shutil.copyfile(bundle, where_it_is)
    where_it_is.chmod(0o644)
    if where.uid != os.geteuid():
        os.chown(directory, where.uid, where.uid)
    done = where.run(["tar", "-xJf", bundle.name], directory)
    assert done.code == 0, done
    return directory / f"termite-{__version__}"


def bare_path(where: Place) -> list[str]:
    """Return the words that start a program with a PATH on which there is next to nothing."""
    tools = where.base / "tools"
    tools.mkdir()
    for name in SHELL_TOOLS:
        (tools / name).symlink_to(f"/usr/bin/{name}")
    return ["/usr/bin/env", f"PATH={tools}"]


@contextmanager
def started(where: Place, top: Path, program: list[str], *words: str) -> Iterator[Daemon]:
    """Run a daemon of the bundle until the end of the block."""
    name = Path(program[-1]).name
    log = where.base / f"{name}.log"
    with log.open("wb") as output:
        process = where.start([*program, *words], top, stdout=output.fileno(), stderr=output.fileno())
    running = Daemon(where, name, process, log)
    try:
        running.wait_for(f"{name}: listens")
        yield running
    finally:
        assert running.stop() == 0, running.text()


def test_a_bundle_works_anywhere_without_compiler_and_pip(builds: tuple[Path, Path], make_place: MakePlace) -> None:
    with make_place("ordinary") as where:
        top, bare = unpacked(only(builds[0], "termite-*.tar.xz"), where), bare_path(where)
        asked = where.run([*bare, "./termite-ctl", "doctor"], top)
        assert asked.code in (0, 104) and b"a job ran in" in asked.stdout, asked
        secret, port = str(new_secret(where)), str(free_port())
        address = f"{HOST}:{port}"
        flags = ("-secret", secret, "-listen", HOST)
        tree = new_tree(where)
        tree.write("x.c", "int x = 1;\n")
        with (
            started(where, top, [*bare, "./termite-coordinator"], *flags, "-port", port),
            started(where, top, [*bare, "./termite-worker"], *flags, "-port", "0", "-coordinator", address),
            daemon(where, "termite-master", "-secret", secret, "-coordinator", address, cwd=tree.path),
        ):
            wait_until(lambda: len(tree.status()["known_workers"]) == 1, "the master knows the worker of the bundle")
            done = tree.termite("gcc", "-c", "x.c", env={"TERMITE_LOCAL": "never", "TERMITE_SHORT": "0"})
            assert done.code == 0, done
            assert [lease["jobs"] for lease in tree.status()["workers"]] == [1]
        assert tree.plain("gcc", "-c", "-o", "y.o", "x.c").code == 0
        assert (tree.path / "x.o").read_bytes() == (tree.path / "y.o").read_bytes()


def test_a_bundle_needs_only_libraries_of_every_system(builds: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(only(builds[0], "termite-*.tar.xz")) as archive:
        archive.extractall(tmp_path)
        assert {(entry.uid, entry.gid, entry.mode & 0o022) for entry in archive if not entry.issym()} == {(0, 0, 0)}
    top = tmp_path / f"termite-{__version__}"
    files = [path for path in top.rglob("*") if path.is_file() and not path.is_symlink() and is_elf(path)]
    inside = {path.name for path in files}
    assert {name for path in files for name in needed_libraries(path)} - inside <= {
        *("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "libgcc_s.so.1", "ld-linux-x86-64.so.2"),
        "ld-linux-aarch64.so.1",
    }
    # No file knows where the bundle was made, and each link leads to Python or into the bundle.
    assert [path for path in top.rglob("*") if path.is_file() and str(CHECKOUT).encode() in path.read_bytes()] == []
    links = {str(path.readlink()) for path in top.rglob("*") if path.is_symlink()}
    assert {link for link in links if link.startswith(("/", ".."))} == {f"/usr/bin/{PYTHON}"}
    # Without Python, each command says what is missing.
    (top / "bin" / "python3").unlink()
    (top / "bin" / "python3").symlink_to("/usr/bin/python3.0")
    said = subprocess.run([top / "termite-worker"], capture_output=True, text=True, check=False)
    assert (said.returncode, f"there is no /usr/bin/{PYTHON}" in said.stderr) == (100, True), said
