"""Build the wheel of termite, with the native programs in it.

scikit-build-core calls it `linux`, which says nothing of the C library that the programs need. A
wheel is therefore renamed to `manylinux_2_N`: pip refuses it where glibc is older (PEP 600).
The wheel serves every Python 3, because it has no module in C.
"""

import base64
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from packing.programs import is_elf, needed_glibc
from packing.release import CHECKOUT, PackingError, Release

_BUILD = "import sys; from scikit_build_core.build import build_wheel; build_wheel(sys.argv[1])"
_FILE, _PROGRAM = 0o100644 << 16, 0o100755 << 16  # as zip files have modes


def build_wheel(release: Release, directory: Path) -> Path:
    """Build the wheel in `directory` and return its path. The native programs are compiled anew.

    Raise PackingError if the compiler or another tool fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        (untagged,) = _build(release, Path(scratch))
        programs = Path(scratch) / "programs"
        with zipfile.ZipFile(untagged) as wheel:
            wheel.extractall(programs, [name for name in wheel.namelist() if ".data/scripts/" in name])
        found = [path for path in programs.rglob("*") if path.is_file() and is_elf(path)]
        major, minor = max(needed_glibc(path) for path in found)
        tag = f"py3-none-manylinux_{major}_{minor}_{release.machine}"
        tagged = directory / f"termite-{release.version}-{tag}.whl"
        _rewrite(release, untagged, tagged, tag)
    return tagged


def _build(release: Release, directory: Path) -> list[Path]:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # cmake and ninja are there
    env = {**os.environ, "PATH": path, "SOURCE_DATE_EPOCH": str(release.epoch_s)}
    built = subprocess.run(
        [sys.executable, "-c", _BUILD, str(directory)],
        cwd=CHECKOUT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if built.returncode:
        raise PackingError(f"the wheel could not be built:\n{built.stdout}")
    return list(directory.glob("*.whl"))


def _rewrite(release: Release, old: Path, new: Path, tag: str) -> None:
    """Copy a wheel under its new tag. Order, times and modes of its files become fixed."""
    notes = f"termite-{release.version}.dist-info"
    with zipfile.ZipFile(old) as wheel:
        contents = {name: wheel.read(name) for name in wheel.namelist() if not name.endswith("/")}
    contents[f"{notes}/WHEEL"] = _with_tag(contents[f"{notes}/WHEEL"].decode(), tag).encode()
    del contents[f"{notes}/RECORD"]
    rows = [f"{name},{_digest(content)},{len(content)}" for name, content in sorted(contents.items())]
    contents[f"{notes}/RECORD"] = "\n".join([*rows, f"{notes}/RECORD,,", ""]).encode()
    with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in sorted(contents.items()):
            entry = zipfile.ZipInfo(name, release.zip_time)
            entry.external_attr = _PROGRAM if ".data/scripts/" in name else _FILE
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, content)


def _with_tag(text: str, tag: str) -> str:
    return "".join(f"Tag: {tag}\n" if line.startswith("Tag: ") else f"{line}\n" for line in text.splitlines())


def _digest(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
