"""Write a directory as an archive whose bytes depend on names, contents and modes only.

Every file belongs to root, has the time of the release, and has the mode 0644 or 0755.
"""

import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path

from packing.release import Release


def write_tar_xz(release: Release, top: Path, archive: Path, level: int) -> None:
    """Write the directory `top` under its own name. `level` is how much xz compresses, 0 to 9."""
    with (
        lzma.open(archive, "wb", preset=level) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for path in _in_order(top):
            entry = _entry(release, path, path.relative_to(top.parent))
            if entry.isreg():
                with path.open("rb") as content:
                    tar.addfile(entry, content)
            else:
                tar.addfile(entry)


def _in_order(top: Path) -> Iterator[Path]:
    yield top
    yield from sorted(top.rglob("*"))


def _entry(release: Release, path: Path, name: Path) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(str(name))
    entry.mtime = release.epoch_s
    entry.uname = entry.gname = "root"
    entry.mode = 0o755
    if path.is_symlink():
        entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
    elif path.is_dir():
        entry.type = tarfile.DIRTYPE
    else:
        status = path.stat()
        entry.size = status.st_size
        entry.mode = 0o755 if status.st_mode & 0o100 else 0o644
    return entry
