"""Make a directory with termite and all that it needs but Python and the C library.

The directory is a virtual environment whose files name no place. bin/python3 leads to Python, and
the first lines of scripts find it beside themselves. A library finds others beside itself. The
packages are those of .venv, whose hashes the set-up has checked. Nothing is downloaded.
"""

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packing.programs import is_elf, needed_glibc, needed_libraries, searched_directories
from packing.release import CHECKOUT, PYTHON, PackingError, Release

REQUIREMENTS = ("requirements.txt", "requirements-web.txt")
INSTALLED = Path(sys.prefix) / "lib" / PYTHON / "site-packages"
SITE_PACKAGES = Path("lib") / PYTHON / "site-packages"
LIBRARIES = "termite.libs"  # beside the packages; tools/setup.sh lets pyfuse3 search there
OURS_TO_SHIP = "libfuse3.so.3"
SYSTEM_LIBRARIES = re.compile(r"lib(c|m|dl|rt|pthread|gcc_s)\.so\.\d+|ld-linux.*\.so\.\d+")
_PINNED = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)
_TESTS = re.compile(r"(^|/)_?tests/")
_FUSE_PLACES = ("/usr/lib", "/lib", "/usr/lib64")
_SCRIPT = """\
#!/bin/sh
''':' # sh and Python both read this file: sh starts the Python that is beside it
here=$(dirname "$(readlink -f "$0")")
if ! [ -x "$here/python3" ]; then
    echo "${{0##*/}}: there is no {python}, which termite needs (Debian 12: apt-get install python3)" >&2
    exit 100
fi
exec "$here/python3" "$0" "$@"
'''
import sys

from {module} import {function}

sys.exit({function}())
"""


def make_product_tree(release: Release, wheel: Path, directory: Path) -> None:
    """Make the tree in the new directory `directory`, with the termite of `wheel`.

    Raise PackingError if .venv does not have the pinned packages, or if a file needs a library that
    is neither in the tree nor in every system.
    """
    begin_tree(directory)
    _unpack_wheel(release, wheel, directory)
    finish_tree(directory)


def begin_tree(directory: Path) -> None:
    """Make the directory of a tree, with all Python packages but termite."""
    (directory / "bin").mkdir(parents=True)
    (packages := directory / SITE_PACKAGES).mkdir(parents=True)
    copy_packages(packages)


def finish_tree(directory: Path) -> None:
    """Add what does not come from termite, check the libraries, and compile all modules."""
    packages = directory / SITE_PACKAGES
    (directory / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (directory / "bin" / "python3").symlink_to(f"/usr/bin/{PYTHON}")
    _strip_own(packages / "pyfuse3")
    _add_fuse_library(packages / LIBRARIES)
    _check_libraries(directory)
    _compile(packages)


def copy_tree(tree: Path, copy: Path) -> None:
    """Copy a product tree by hard links, because its files are only read."""
    shutil.copytree(tree, copy, symlinks=True, copy_function=os.link)


def tree_glibc(tree: Path) -> str:
    """Return the oldest version of glibc on which all files of the tree run, such as "2.34"."""
    return "{}.{}".format(*max(map(needed_glibc, _elf_files(tree))))


def copy_packages(directory: Path) -> None:
    """Copy all Python packages that termite needs from .venv, without programs and tests.

    Raise PackingError if one is missing or has another version.
    """
    for file in REQUIREMENTS:
        for name, version in _PINNED.findall((CHECKOUT / file).read_text()):
            found = next(iter(metadata.distributions(name=name, path=[str(INSTALLED)])), None)
            if found is None or found.version != version:
                raise PackingError(f".venv does not have {name} {version}: run make setup")
            for path in found.files or ():
                if _is_needed(str(path)):
                    target = directory / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(INSTALLED / path, target)


def _is_needed(name: str) -> bool:
    """Return True for a file of a package that is the same wherever the package was installed."""
    is_note = name.endswith((".dist-info/RECORD", ".dist-info/INSTALLER", ".dist-info/REQUESTED"))
    return not (name.startswith("..") or "__pycache__" in name or is_note or _TESTS.search(name))


def _unpack_wheel(release: Release, wheel: Path, directory: Path) -> None:
    """Put the files of termite's wheel where pip would, with scripts that name no place."""
    programs = directory / "bin"
    with zipfile.ZipFile(wheel) as file:
        for name in file.namelist():
            content = file.read(name)
            if name.startswith(f"termite-{release.version}.data/scripts/"):
                _write(programs / Path(name).name, content, 0o755)
            elif _is_needed(name):
                _write(directory / SITE_PACKAGES / name, content, 0o644)
        entry_points = file.read(f"termite-{release.version}.dist-info/entry_points.txt").decode()
    add_scripts(programs, entry_points)


def add_scripts(programs: Path, entry_points: str) -> None:
    """Add the commands in Python, which `entry_points` lists as a wheel does, and termite-shell."""
    (programs / "termite-shell").unlink(missing_ok=True)  # a wheel has no links
    (programs / "termite-shell").symlink_to("termite")
    for name, script in _scripts(entry_points):
        _write(programs / name, script.encode(), 0o755)


def _scripts(entry_points: str) -> Iterator[tuple[str, str]]:
    """Yield name and content of each command that is written in Python."""
    parser = configparser.ConfigParser()
    parser.read_string(entry_points)
    for name, target in parser["console_scripts"].items():
        module, _, function = target.partition(":")
        yield name, _SCRIPT.format(python=f"/usr/bin/{PYTHON}", module=module, function=function)


def _write(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def _strip_own(package: Path) -> None:
    """Remove the debug information of what the set-up has compiled: it names places."""
    libraries = list(package.rglob("*.so"))
    for library in libraries:
        if f"$ORIGIN/../{LIBRARIES}" not in searched_directories(library):
            raise PackingError(f"{library.name} was built by an older set-up: remove .venv, and run make setup")
        subprocess.run(["strip", "--strip-unneeded", str(library)], check=True)


def _add_fuse_library(directory: Path) -> None:
    """Copy libfuse3 of this machine, with its licence."""
    machine = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True, check=True).stdout.strip()
    places = [Path(top) / machine / OURS_TO_SHIP for top in _FUSE_PLACES] + [Path("/usr/lib64") / OURS_TO_SHIP]
    library = next((place for place in places if place.exists()), None)
    if library is None:
        raise PackingError(f"{OURS_TO_SHIP} is missing: install it (Debian: apt-get install libfuse3-3)")
    directory.mkdir()
    shutil.copyfile(library, directory / OURS_TO_SHIP)
    licence = Path("/usr/share/doc/libfuse3-3/copyright")
    if licence.exists():
        shutil.copyfile(licence, directory / f"{OURS_TO_SHIP}.copyright")


def _check_libraries(directory: Path) -> None:
    """Raise PackingError if a file needs a library that a system without packages may lack."""
    for file in _elf_files(directory):
        foreign = {name for name in needed_libraries(file) if not SYSTEM_LIBRARIES.fullmatch(name)} - {OURS_TO_SHIP}
        if foreign:
            raise PackingError(f"{file.name} needs {', '.join(sorted(foreign))}, which the bundle does not have")


def _elf_files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink() and is_elf(path)]


def _compile(packages: Path) -> None:
    """Compile all modules: whoever starts termite may not be able to write into the tree.

    The compiled files know their sources by content. Their bytes depend on no time and no place.
    """
    words = ["-q", "--invalidation-mode", "unchecked-hash", "-s", str(packages), "-p", "/"]
    env = {**os.environ, "PYTHONHASHSEED": "0"}
    subprocess.run([f"/usr/bin/{PYTHON}", "-P", "-m", "compileall", *words, str(packages)], check=True, env=env)
