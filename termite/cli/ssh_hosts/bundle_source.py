"""Find the bundle that goes to hosts: the one that the user names, or one of this installation.

The Debian package and an unpacked bundle are such trees already, and are packed as they are. In a
checkout, tools/packing makes the tree of sources, .venv and native programs. An archive that was
packed is kept until something in it has changed.
"""

import gzip
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import termite
from termite.cli.places import CACHE, own_directory
from termite.engine.errors import UserError

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
HINT = "in a checkout, `make dist` builds one: termite-ctl add -bundle dist/termite-*-linux-*.tar.xz"
PACKED_TIME_S = 315532800  # 1980-01-01: the archive depends on contents alone
LEVEL = 6  # of gzip: 16 MB in two seconds; xz would make 10 MB of it in twenty
_PACKAGE = Path(termite.__file__).parent
_TOP = re.compile(r"termite-(\d[\w.+-]*)")
_MACHINE = re.compile(r"-linux-(\w+)\.")


@dataclass(frozen=True, slots=True)
class Bundle:
    """An archive with termite for hosts. `machine` is the architecture that it is for.

    `file` stays open, because another termite-ctl may remove or replace the file at `path`.
    """

    path: Path
    digest: str
    release: str
    machine: str
    file: BinaryIO

    @property
    def size_bytes(self) -> int:
        """The size of the archive."""
        return os.fstat(self.file.fileno()).st_size


def find_bundle(named: Path | None) -> Bundle:
    """Return the bundle to send. Raise UserError if there is none. This may take half a minute."""
    try:
        return read_bundle(_packed_here() if named is None else named)
    except OSError as error:  # a full disk, or a file that vanishes meanwhile
        raise UserError(f"no bundle can be made: {error}", hint="try again, or give a -bundle") from error


def _packed_here() -> Path:
    """Return the archive of the termite that runs. Raise UserError or OSError."""
    if is_product_tree(Path(sys.prefix)):
        return _packed(Path(sys.prefix), _stamp(_files_of(Path(sys.prefix))))
    checkout = _PACKAGE.parent
    if (checkout / "tools" / "packing" / "checkout_tree.py").exists():
        return _packed_checkout(checkout)
    raise UserError("this installation cannot be sent to other machines: give a bundle", hint=HINT)


def read_bundle(path: Path) -> Bundle:
    """Return what an archive is. Raise UserError if it is no bundle."""
    with ExitStack() as opened:
        try:
            file = opened.enter_context(path.open("rb"))
            with tarfile.open(fileobj=file) as archive:
                first = archive.next()
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, EOFError, tarfile.TarError) as error:
            raise UserError(f"{path} is no bundle: {error}", hint=HINT) from error
        found = _TOP.fullmatch(first.name.partition("/")[0]) if first else None
        if found is None:
            raise UserError(f"{path} is no bundle of termite", hint=HINT)
        machine = _MACHINE.search(path.name)
        opened.pop_all()
    return Bundle(path, digest, found[1], machine[1] if machine else os.uname().machine, file)


def is_product_tree(tree: Path) -> bool:
    """Return whether the termite that runs is one of a bundle or of the Debian package."""
    is_ours = tree / "lib" / PYTHON / "site-packages" / "termite" == _PACKAGE
    program, python = tree / "bin" / "termite-worker", tree / "bin" / "python3"
    try:
        return is_ours and os.readlink(python).startswith("/usr/bin/") and program.read_bytes()[:9] == b"#!/bin/sh"
    except OSError:
        return False


def _files_of(tree: Path) -> list[Path]:
    """Return everything below a product tree that a bundle has, in a fixed order."""
    return sorted(path for name in ("bin", "lib", "pyvenv.cfg") for path in _below(tree / name))


def _below(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir() and not path.is_symlink():
        yield from path.rglob("*")


def _stamp(paths: list[Path]) -> str:
    """Return a text that is another one if any of these files has changed."""
    facts = hashlib.sha256()
    for path in paths:
        status = path.lstat()
        facts.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return facts.hexdigest()[:16]


def _packed_checkout(checkout: Path) -> Path:
    """Return the archive of a checkout. Raise UserError if its set-up is not done."""
    sources = [path for path in sorted((checkout / "termite").rglob("*")) if "__pycache__" not in path.parts]
    stamp = _stamp(
        [path for path in (*sources, *sorted(Path(sys.executable).parent.glob("*termite*"))) if path.is_file()]
    )
    if (kept := _place_of(stamp)).exists():
        return kept
    with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
        env = {**os.environ, "PYTHONPATH": str(checkout / "tools")}
        words = [sys.executable, "-m", "packing.checkout_tree", f"{scratch}/tree"]
        made = subprocess.run(words, env=env, capture_output=True, text=True)
        if made.returncode:
            said = made.stderr.strip().splitlines() or [f"exit code {made.returncode}"]
            raise UserError(f"the bundle of this checkout cannot be made: {said[-1]}", hint="run make setup")
        return _packed(Path(scratch) / "tree", stamp)


def _place_of(stamp: str) -> Path:
    directory = own_directory(CACHE) / "bundles"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory / f"termite-{termite.__version__}-{stamp}-linux-{os.uname().machine}.tar.gz"


def _packed(tree: Path, stamp: str) -> Path:
    """Return the archive of a tree. Older archives are removed."""
    archive = _place_of(stamp)
    if archive.exists():
        return archive
    new = archive.with_name(f"{os.getpid()}.new")
    try:
        with (
            new.open("wb") as file,
            gzip.GzipFile("", "wb", LEVEL, file, mtime=PACKED_TIME_S) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
        ):
            top = Path(f"termite-{termite.__version__}")
            for path in _files_of(tree):
                tar.add(path, top / path.relative_to(tree), recursive=False, filter=_entry)
        for older in archive.parent.glob("termite-*"):
            if older != archive:  # another program may have made it meanwhile, and read it now
                older.unlink(missing_ok=True)
        new.rename(archive)
    except OSError as error:
        raise UserError(f"{archive}: {error.strerror}", hint="make room there, or give a -bundle") from error
    finally:
        new.unlink(missing_ok=True)
    return archive


def _entry(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mtime = PACKED_TIME_S
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry
