"""Print all that two builds must have in common of a directory, as a line of JSON for each entry.

A test runs this inside a place, because the directory may be on a file system that only the place
sees. Usage: tree_listing.py DIRECTORY IGNORED, with a regular expression for paths to leave out.
"""

import hashlib
import json
import os
import re
import stat
import sys
import tarfile

TRANSLATIONS = (".po", ".pot", ".gmo", ".mo")
SPARSE_BYTES = 1 << 20  # below that, a file system may store a file as it likes


def main() -> None:
    top, ignored = sys.argv[1], re.compile(sys.argv[2])
    names: dict[tuple[int, int], str] = {}
    for path in sorted(walk(top)):
        name = os.path.relpath(path, top)
        if not ignored.search(name):
            print(json.dumps([name, *entry(path, name, names)], ensure_ascii=True))


def walk(top: str) -> list[str]:
    found = [top]
    for directory, directories, files in os.walk(top):
        directories[:] = [name for name in directories if not name.startswith(".termite")]
        found += [os.path.join(directory, name) for name in directories + files if not name.startswith(".termite")]
    return found


def entry(path: str, name: str, names: dict[tuple[int, int], str]) -> list[object]:
    """Return mode, owners, content, the first name of the same file, attributes, and density."""
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    first = name
    if kind != stat.S_IFDIR:
        first = names.setdefault((status.st_dev, status.st_ino), name)
    content = os.readlink(path) if kind == stat.S_IFLNK else ""
    is_sparse = False
    if kind == stat.S_IFREG:
        content = content_of(path)
        is_sparse = status.st_size > SPARSE_BYTES and status.st_blocks * 512 < status.st_size // 2
    attributes = {
        attribute: os.getxattr(path, attribute, follow_symlinks=False).hex()
        for attribute in os.listxattr(path, follow_symlinks=False)
    }
    return [f"{status.st_mode:o}", status.st_uid, status.st_gid, content, first, attributes, is_sparse]


def content_of(path: str) -> str:
    """Return a digest. In an archive of a distribution, times are new in each build."""
    if path.endswith(TRANSLATIONS):
        with open(path, "rb") as file:
            return hashlib.sha256(without_minute(file.read())).hexdigest()
    if not path.endswith(".tar.gz"):
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    with tarfile.open(path) as archive:
        for member in sorted(archive, key=lambda member: member.name):
            digest.update(f"{member.name} {member.mode:o} {member.type!r} {member.linkname}\n".encode())
            content = archive.extractfile(member) if member.isreg() else None
            digest.update(without_minute(content.read()) if content else b"")
    return digest.hexdigest()


def without_minute(content: bytes) -> bytes:
    """Leave out the minute in which xgettext ran."""
    return re.sub(rb"(POT-Creation-Date: )[-+: 0-9]+", rb"\1", content)


if __name__ == "__main__":
    main()
