"""Read from a program or library in ELF what it needs at run time, with `readelf` of binutils."""

import re
import subprocess
from pathlib import Path

_NEEDED = re.compile(r"\(NEEDED\).*\[(.*)\]")
_SEARCHED = re.compile(r"\((?:RUNPATH|RPATH)\).*\[(.*)\]")
_GLIBC = re.compile(r"\bGLIBC_(\d+)\.(\d+)")


def is_elf(path: Path) -> bool:
    """Return True if the file is a program or a library in ELF."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def needed_libraries(path: Path) -> set[str]:
    """Return the names of the shared libraries that a file names itself."""
    return set(_NEEDED.findall(_readelf("--dynamic", path)))


def searched_directories(path: Path) -> list[str]:
    """Return the directories that the file itself adds to the search for libraries."""
    return [place for found in _SEARCHED.findall(_readelf("--dynamic", path)) for place in found.split(":")]


def needed_glibc(path: Path) -> tuple[int, int]:
    """Return the oldest glibc that has all symbols of the file; (0, 0) if it needs none."""
    found = _GLIBC.findall(_readelf("--version-info", path))
    return max(((int(major), int(minor)) for major, minor in found), default=(0, 0))


def _readelf(what: str, path: Path) -> str:
    return subprocess.run(
        ["readelf", "--wide", what, str(path)], capture_output=True, text=True, check=True, env={"LC_ALL": "C"}
    ).stdout
