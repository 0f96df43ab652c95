"""A hostile master asks for files of the worker's own disk, and gets only those that are public.

The mirror may read more than everybody may: files of the worker's user, and files of his group.
The master lists such a file as one of its own, and accepts the digest that the mirror offers. A job
then reads the content, which the master never had.
"""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from termite.engine.errors import FsError
from termite.engine.model import Attr, Digest
from termite.engine.wire.protocol.messages import Directory, File, GetFile
from termite.engine.wire.transport import SendChunk
from termite.fuse.content import local_copy
from termite.fuse.content.local_copy import WORTH_BYTES, find_local_copy
from tests.e2e.mirror_places import mirror_place
from tests.e2e.mirrors import FakeMaster, Starter, mirror

IS_ROOT = os.getuid() == 0
USER = 61000  # any id that no one has
STARTERS = [pytest.param(Starter(), id="as this user")]
if IS_ROOT:
    STARTERS += [
        pytest.param(Starter(user=USER), id="as an ordinary user"),
        pytest.param(Starter(uid=USER), id="by root for a user"),
    ]
SIZE = WORTH_BYTES + 1
SECRET = b"SECRET " * (SIZE // 7) + b"S" * (SIZE % 7)


class HostileMaster(FakeMaster):
    """A hostile master lists files at will, and accepts whatever content the mirror offers."""

    def __init__(self, project: Path) -> None:
        super().__init__(project)
        self.lies: dict[bytes, int] = {}  # sizes of files, by path
        self.offered: dict[bytes, Digest | None] = {}

    def lie(self, path: Path, size: int) -> None:
        self.lies[os.fsencode(path)[1:]] = size

    def _directory(self, path: bytes) -> Directory:
        try:
            children = dict(super()._directory(path).children)
        except FsError:
            children = {}
        for lie, size in self.lies.items():
            if not path or lie.startswith(path + b"/"):
                name, _, below = (lie[len(path) + 1 :] if path else lie).partition(b"/")
                children[name] = Attr(stat.S_IFDIR | 0o755, 0, 1) if below else Attr(stat.S_IFREG | 0o644, size, 1)
        return Directory(self.number, Attr(stat.S_IFDIR | 0o755, 0, 1), children)

    async def _file(self, request: GetFile, send_chunk: SendChunk) -> File:
        if request.path not in self.lies:
            return await super()._file(request, send_chunk)
        self.offered[request.path] = request.candidate
        if request.candidate is None:
            raise FsError(errno.EIO, request.path)  # it does not have the content itself
        return File(request.candidate)


@pytest.fixture
def place() -> Iterator[Path]:
    """Make a directory, for root where mirrors offer files, so that other rules have to hold."""
    with mirror_place("/srv" if IS_ROOT else "/var/tmp") as path:
        (path / "mirror").mkdir()
        yield path


def closed_file(top: Path, owner: int) -> Path:
    """Make a file that only a group may read, in which the worker's user is."""
    (top / "f").write_bytes(SECRET)
    os.chown(top / "f", -1, owner)
    (top / "f").chmod(0o640)
    return top / "f"


def closed_directory(top: Path, owner: int) -> Path:
    """Make a file that everybody may read, in a directory that only that group may pass."""
    (top / "d/e").mkdir(parents=True)
    (top / "d/e/f").write_bytes(SECRET)
    os.chown(top / "d", -1, owner)
    (top / "d").chmod(0o710)
    return top / "d/e/f"


def symlink_to_file(top: Path, owner: int) -> Path:
    (top / "link").symlink_to(closed_directory(top, owner))
    return top / "link"


def symlink_to_directory(top: Path, owner: int) -> Path:
    (top / "link").symlink_to(closed_directory(top, owner).parent)
    return top / "link/f"


def private_file(top: Path, owner: int) -> Path:
    (top / "f").write_bytes(SECRET)
    os.chown(top / "f", owner, owner)
    (top / "f").chmod(0o600)
    return top / "f"


def careless_file(top: Path, owner: int) -> Path:
    """Make a file of the worker's user that everybody may read, as in many home directories."""
    path = private_file(top, owner)
    path.chmod(0o644)
    return path


MAKERS = [closed_file, closed_directory, symlink_to_file, symlink_to_directory, private_file, careless_file]


@pytest.mark.parametrize("starter", STARTERS)
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
async def test_no_private_file_of_the_worker_reaches_a_job(
    place: Path, starter: Starter, make: Callable[[Path, int], Path]
) -> None:
    if make is careless_file and starter.owner() == 0:
        pytest.skip("what root lets everybody read is public")
    (place / "top").mkdir()
    path = make(place / "top", starter.owner())
    master = HostileMaster(place / "project")
    master.lie(path, SIZE)
    output: list[bytes] = []
    async with mirror(master, place / "mirror", starter):
        ran = await master.run("/bin/sh", "-c", f"cat {path} 2>&1 || echo refused", output=output)
    said = b"".join(chunk[1:] for chunk in output)
    assert b"SECRET" not in said
    assert said.endswith(b"refused\n"), (ran, said)
    assert master.offered == {os.fsencode(path)[1:]: None}


def public_program() -> tuple[Path, bytes]:
    """Return one, by its resolved path, as a master lists it: /usr/bin, whatever /bin is."""
    program = Path(os.path.realpath(shutil.which("perl") or "/usr/bin/python3"))
    content = program.read_bytes()
    assert len(content) > WORTH_BYTES
    assert program.is_relative_to("/usr")
    return program, content


@pytest.mark.parametrize("starter", STARTERS)
async def test_a_public_program_of_the_worker_is_still_offered(place: Path, starter: Starter) -> None:
    program, content = public_program()
    master = HostileMaster(place / "project")
    master.lie(program, len(content))
    async with mirror(master, place / "mirror", starter):
        said = await master.said("/bin/sh", "-c", f"sha256sum {program}")
    digest = Digest(hashlib.sha256(content).digest(), len(content))
    assert said.split()[0].decode() == digest.sha256.hex()
    assert master.offered == {os.fsencode(program)[1:]: digest}


@pytest.fixture
def as_roots(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a directory that counts as one of root's, so that each rule can be tried alone."""
    monkeypatch.setattr(local_copy, "PERSONAL", ())
    monkeypatch.setattr(local_copy, "_own_uid", lambda: -1)
    (place / "d/e").mkdir(parents=True)
    (place / "d/e/f").write_bytes(SECRET)
    return place


def is_offered(path: Path) -> bool:
    local = find_local_copy(os.fsencode(path)[1:], SIZE)
    if local is not None:
        os.close(local.fd)
    return local is not None


@pytest.mark.parametrize(
    ("name", "mode", "offered"),
    [
        ("d/e/f", 0o644, True),
        ("d/e/f", 0o604, True),
        ("d/e/f", 0o640, False),
        ("d/e", 0o711, True),
        ("d/e", 0o754, False),
        ("d", 0o750, False),
        ("", 0o750, False),
    ],
)
def test_what_others_may_read_all_the_way_down_is_offered(as_roots: Path, name: str, mode: int, offered: bool) -> None:
    assert is_offered(as_roots / "d/e/f")
    (as_roots / name).chmod(mode)
    assert is_offered(as_roots / "d/e/f") is offered


def test_no_symlink_is_followed(as_roots: Path) -> None:
    (as_roots / "d/link").symlink_to("e")
    (as_roots / "d/e/link").symlink_to("f")
    assert not is_offered(as_roots / "d/link/f")
    assert not is_offered(as_roots / "d/e/link")


@pytest.mark.parametrize("path", [b"d/../d/e/f", b"d//e/f", b"d/./e/f", b"/d/e/f"])
def test_what_is_no_path_is_refused(as_roots: Path, path: bytes) -> None:
    with pytest.raises(FsError):
        find_local_copy(os.fsencode(as_roots)[1:] + b"/" + path, SIZE)


def test_what_is_in_places_of_persons_is_not_offered(as_roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_copy, "PERSONAL", (os.fsencode(as_roots)[1:],))
    assert not is_offered(as_roots / "d/e/f")


def test_nothing_stays_open(as_roots: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    (as_roots / "d/link").symlink_to("e")
    for name in ("d/e/f", "d/link/f", "d/e/none", "d/e"):
        is_offered(as_roots / name)
    assert set(os.listdir("/proc/self/fd")) == before
