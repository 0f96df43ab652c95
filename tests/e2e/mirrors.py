"""Run a mirror process with a fake master: everything but the master is real."""

import json
import os
import socket
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import trio

from termite.engine.errors import FsError, Stale
from termite.engine.host.native_programs import native_program
from termite.engine.model import Attr, Change, Changeset, JobLimits, JobNetwork, MachineFacts, StoreLimits
from termite.engine.sparse_content import digest_of
from termite.engine.wire.authority import Role, mint
from termite.engine.wire.protocol.control_lines import StartValues, WorkerOrder, encode_line
from termite.engine.wire.protocol.frames import DATA_BYTES, pack_piece, parse_piece
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import (
    INLINE_BYTES,
    PROTOCOL,
    Directory,
    Done,
    File,
    GetDirectory,
    GetFile,
    Leased,
    OpenLease,
    Ran,
    ReadStdin,
    Run,
    SetSlots,
    StdinBytes,
    StdinTaken,
)
from termite.engine.wire.transport import Connection, SendChunk, dial

SECRET = b"a secret that only these tests know"
PROGRAM = [sys.executable, "-P", "-m", "termite.fuse.mirror"]
EMPTY = (b"proc", b"sys", b"dev", b"run")
ROOT = Path(__file__).parents[2]


class FakeMaster:
    """A master that serves this machine's files as they are.

    Tests change its journal, and hold or count the requests.
    """

    def __init__(self, project: Path) -> None:
        self.project = project
        self.writable_root = os.fsencode(project)[1:]
        self.number = 0
        self.journal: list[Changeset] = []
        self.sent = 0
        self.jobs = 0
        self.asked: Counter[str] = Counter()
        self.held: dict[bytes, trio.Event] = {}
        self.failing: dict[bytes, Exception] = {}
        self.reached = trio.Event()
        self.stdin: list[bytes] = []
        self.hold_stdin: trio.Event | None = None
        self.stdin_sizes: list[int] = []
        self.stdin_taken: list[int] = []
        self.slots: list[int] = []
        self.connection: Any = None
        self.uid, self.gid = os.getuid(), os.getgid()
        self.owner = bytes(32)

    async def answer(self, connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        self.asked[type(message).__name__] += 1
        match message:
            case GetDirectory(path=path):
                await self._wait_if_held(path)
                return self._directory(path)
            case GetFile(path=path):
                await self._wait_if_held(path)
                return await self._file(message, send_chunk)
            case ReadStdin(size=size):
                self.stdin_sizes.append(size)
                self.reached.set()
                if self.hold_stdin is not None:
                    await self.hold_stdin.wait()
                return StdinBytes(self.stdin.pop(0) if self.stdin else b"")
            case StdinTaken(taken=taken):
                self.stdin_taken.append(taken)
                return Done()
            case SetSlots(slots=slots):
                self.slots.append(slots)
                return Done()
        raise AssertionError(message)

    def lease(self) -> OpenLease:
        """Return its first request."""
        ids = self.uid, self.gid
        return OpenLease(PROTOCOL, "test", 4, *ids, self.writable_root, self.number, 1, "home", self.owner)

    def journal_disk(self, *paths: Path) -> None:
        """Journal the paths, which have changed on disk, as one changeset."""
        changes = []
        for path in paths:
            name = os.fsencode(path)[1:]
            try:
                changes.append(Change(name, attr_of(os.fsencode(path))))
            except FileNotFoundError:
                changes.append(Change(name, None))
        self.number += 1
        self.journal.append(Changeset(self.number, tuple(changes)))

    async def run(self, *argv: str, output: list[bytes] | None = None, **fields: Any) -> Ran:
        """Run one job, at the newest number."""
        self.jobs += 1
        changesets, self.sent = tuple(self.journal[self.sent :]), len(self.journal)

        async def on_chunk(chunk: bytes) -> None:
            if output is not None:
                output.append(chunk)

        request = Run(
            job=self.jobs,
            number=self.number,
            changesets=changesets,
            argv=tuple(map(os.fsencode, argv)),
            exe=os.fsencode(argv[0]),
            search=True,
            env=(b"PATH=/usr/bin:/bin", b"LANG=C.UTF-8"),
            cwd=os.fsencode(self.project),
            umask=0o022,
            stdin=bool(self.stdin),
            merge=False,
        )
        reply = await self.connection.request(self.finish(request, fields), on_chunk=on_chunk)
        assert isinstance(reply, Ran)
        return reply

    def finish(self, request: Run, fields: dict[str, Any]) -> Run:
        """Return the request with the fields that a test wants."""
        return msgspec.structs.replace(request, **fields)

    async def said(self, *argv: str, **fields: Any) -> bytes:
        """Run a command that must succeed, and return its stdout."""
        output: list[bytes] = []
        ran = await self.run(*argv, output=output, **fields)
        assert ran.exit.code == 0 and not ran.exit.signal, (ran, output)
        return b"".join(chunk[1:] for chunk in output if chunk[:1] == b"1")

    def _directory(self, path: bytes) -> Directory:
        where = b"/" + path
        try:
            names = [] if path in EMPTY else os.listdir(where)
            attr = attr_of(where)
        except OSError as error:
            raise FsError(error.errno or 5, path) from error
        children = {}
        for name in names:
            try:
                children[name] = attr_of(os.path.join(where, name))
            except FileNotFoundError:
                continue
        return Directory(self.number, attr, children)

    async def _file(self, request: GetFile, send_chunk: SendChunk) -> File:
        try:
            content = read_whole(b"/" + request.path)
        except OSError as error:
            raise Stale(os.fsdecode(request.path)) from error
        status = os.stat(b"/" + request.path)
        if (status.st_size, status.st_mtime_ns) != (request.size, request.mtime_ns):
            raise Stale(os.fsdecode(request.path))
        digest = digest_of(content)
        if len(content) <= INLINE_BYTES:
            return File(digest, content)
        for start in range(0, len(content), DATA_BYTES):
            await send_chunk(pack_piece(content[start : start + DATA_BYTES]))
        return File(digest)

    async def _wait_if_held(self, path: bytes) -> None:
        if path in self.held:
            self.reached.set()
            await self.held[path].wait()
        if path in self.failing:
            raise self.failing[path]


def unpacked(chunk: bytes) -> bytes:
    """Return the bytes for which a chunk of a content stands."""
    return bytes(parse_piece(chunk))


def read_whole(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def write_whole(path: bytes, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def attr_of(path: bytes) -> Attr:
    status = os.lstat(path)
    is_link = stat.S_ISLNK(status.st_mode)
    return Attr(
        mode=status.st_mode,
        size=0 if stat.S_ISDIR(status.st_mode) else status.st_size,
        mtime_ns=status.st_mtime_ns,
        target=os.readlink(path) if is_link else b"",
        nlink=status.st_nlink,
        link_id=status.st_ino if status.st_nlink > 1 and stat.S_ISREG(status.st_mode) else 0,
    )


class MirrorProcess:
    """A mirror process as its worker sees it."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.process = process
        self.control = trio.socket.from_stdlib_socket(control)
        self.lines: list[dict[str, Any]] = []
        self.said = trio.lowlevel.ParkingLot()

    async def listen(self, slots: int) -> None:
        received = b""
        with suppress(trio.ClosedResourceError, OSError):  # OSError: `_stop` closes it when the mirror has just ended
            while more := await self.control.recv(65536):
                *lines, received = (received + more).split(b"\n")
                for line in lines:
                    self.lines.append(json.loads(line))
                    self.said.unpark_all()
                    if "lease" in self.lines[-1]:
                        await self.send(WorkerOrder(granted=slots) if slots else WorkerOrder(refused=8))

    async def wait(self) -> int:
        """Wait until it has ended, and return its exit code."""
        pidfd = os.pidfd_open(self.process.pid)
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)
        return self.process.wait()

    async def send(self, order: WorkerOrder) -> None:
        await self.control.send(encode_line(order))


@dataclass(frozen=True)
class Starter:
    """The way in which a mirror is started.

    `user` starts it (None: the user of the tests), and `uid` runs it (None: the same). `through` is
    a command that starts the one behind it. `program` is termite-sandbox (None: the installed one),
    and `sandbox` is the one that makes the jobs (None: the same). `network` is what jobs
    get that want one. `limits` hold for each job. It joins the control group with the file `group`.
    """

    user: int | None = None
    uid: int | None = None
    through: tuple[str, ...] = ()
    program: Path | None = None
    sandbox: Path | None = None
    network: JobNetwork = field(default_factory=lambda: JobNetwork(is_given=True))
    limits: JobLimits = field(default_factory=JobLimits)
    group: Path | None = None

    def owner(self) -> int:
        return self.uid or self.user or os.getuid()


@asynccontextmanager
async def mirror(
    master: FakeMaster,
    place: Path,
    starter: Starter = Starter(),
    *,
    slots: int = 4,
    tmpfs: bool = True,
    store: StoreLimits | None = None,
) -> AsyncIterator[MirrorProcess]:
    """Run a mirror with a lease for `master`; it ends by itself when the block does.

    `slots` 0: the worker refuses the lease.
    """
    cache, scratch = place / "cache", place / "scratch"
    for directory in (cache, scratch):
        directory.mkdir(exist_ok=True)
        os.chown(directory, starter.owner(), starter.owner())
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        port = listener.getsockname()[1]
        async with trio.open_nursery() as nursery:
            dialled = trio.Event()
            box: list[MirrorProcess] = []

            async def accept() -> None:
                accepted, _ = await trio.to_thread.run_sync(listener.accept)
                box.append(_start(accepted, cache, scratch, tmpfs, starter, store or StoreLimits()))
                nursery.start_soon(box[0].listen, slots)
                dialled.set()

            nursery.start_soon(accept)
            try:
                async with dial("127.0.0.1", port, mint(SECRET, "master", Role.CLIENT), master.answer) as connection:
                    await dialled.wait()
                    master.connection = connection
                    reply = await connection.request(master.lease())
                    assert isinstance(reply, Leased)
                    yield box[0]
            finally:
                if box:
                    with trio.CancelScope(shield=True):
                        await _stop(box[0])


def _start(
    accepted: socket.socket, cache: Path, scratch: Path, tmpfs: bool, starter: Starter, store: StoreLimits
) -> MirrorProcess:
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    identity = mint(SECRET, "worker", Role.MIRROR)
    sandbox = starter.program or native_program("termite-sandbox")
    group = [f"--group={starter.group}"] if starter.group else []
    user = [f"--uid={starter.uid}", f"--gid={starter.uid}"] if starter.uid else []
    enter = [str(sandbox), "enter", *group, *user, "--"]
    with accepted, theirs:
        values = StartValues(
            socket_fd=accepted.fileno(),
            control_fd=theirs.fileno(),
            certificate=identity.certificate,
            key=identity.key,
            authority=identity.authority,
            worker="tester",
            cache=str(cache),
            scratch=str(scratch),
            tmpfs=tmpfs,
            sandbox=str(starter.sandbox or sandbox),
            machine=MachineFacts(),
            log_level=os.environ.get("MIRROR_LOG", "warning"),
            store=store,
            network=starter.network,
            limits=starter.limits,
        )
        process = subprocess.Popen(
            [*starter.through, *enter, *PROGRAM, str(reader)],
            pass_fds=(reader, accepted.fileno(), theirs.fileno()),
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd="/",
            user=starter.user,
            group=starter.user,
            extra_groups=[] if starter.user else None,
        )
        os.close(reader)
        with os.fdopen(writer, "wb") as file:
            file.write(encode_line(values))
    return MirrorProcess(process, ours)


async def _stop(mirror: MirrorProcess) -> None:
    mirror.control.close()
    with trio.move_on_after(10) as patience:
        assert mirror.process.returncode == 0 or await mirror.wait() == 0
    if patience.cancelled_caught:
        mirror.process.kill()
        mirror.process.wait()
        raise AssertionError("the mirror did not end by itself")
