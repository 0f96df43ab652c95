"""The files of a release: they install on a bare machine, they work there, and they are reproducible.

All tests are in one file, because a parallel run would build once for each file.
"""

import base64
import csv
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from packing.product_tree import copy_packages
from packing.release import PYTHON
from termite import __version__
from tests.dist.conftest import MakePlace
from tests.e2e.cluster import new_tree

PROGRAMS = {"termite", "termite-make", "termite-sandbox", "libtermite-exec.so"}


def only(directory: Path, pattern: str) -> Path:
    """Return the one file of a build that matches."""
    (found,) = directory.glob(pattern)
    return found


def test_two_builds_are_equal(builds: tuple[Path, Path]) -> None:
    first, second = ({path.name: digest(path) for path in directory.iterdir()} for directory in builds)
    assert first == second
    assert len(first) == 1


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
