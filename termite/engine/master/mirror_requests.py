"""Answer the requests of mirrors for directories, files, and the standard input of their jobs.

A file may change between its listing and its request. The mirror then gets Stale, never the
contents of another version.
"""

import os
from collections.abc import Callable, Mapping
from errno import EIO

import trio

from termite.engine.decide.logic.questions import reason_to_seal, seal_programs
from termite.engine.errors import FsError, Reason, RemoteProtocolError, Retryable, Stale
from termite.engine.fleet.lease import Lease
from termite.engine.master.job import Job
from termite.engine.model import Attr, Command, Digest, MachineFacts
from termite.engine.paths import split
from termite.engine.sparse_content import pieces
from termite.engine.tree.logic.times import wire_ns
from termite.engine.tree.master_tree import MasterTree
from termite.engine.tree.tree_disk import look_failed
from termite.engine.wire.protocol.frames import DATA_BYTES, pack_piece
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import (
    INLINE_BYTES,
    Directory,
    Done,
    Entry,
    File,
    GetDirectory,
    GetEntry,
    GetFile,
    ReadStdin,
    StdinBytes,
    StdinTaken,
)
from termite.engine.wire.transport import SendChunk

STDIN_LIMIT_BYTES = 192 * 1024  # of one answer, which is one frame


class MirrorRequests:
    """The handler of mirrors' requests. `jobs` are the running jobs by their ids.

    `is_droppable` returns whether a command does not need an absolute path outside the tree.
    `machine` is this one; if it is None, no program is sealed because of its answers.
    """

    def __init__(
        self,
        tree: MasterTree,
        jobs: Mapping[int, Job],
        is_droppable: Callable[[str, Command], bool] = lambda path, command: False,
        machine: MachineFacts | None = None,
    ) -> None:
        self._tree = tree
        self._jobs = jobs
        self._is_droppable = is_droppable
        self._machine = machine

    async def answer(self, lease: Lease, message: Message, send_chunk: SendChunk) -> Message:
        """Return the reply to one request of the mirror of `lease`.

        Block while files are hashed or a launcher reads its stdin. Raise FsError for the job, Stale
        if the file or directory has changed, Retryable if looking at it fails, and
        RemoteProtocolError if the mirror may not send such a message.
        """
        match message:
            case GetDirectory(path=path):
                self._tree.load(path, lease.worker)
                if lease.known_turns is None:
                    lease.known_turns = self._tree.notes.turns
                if seal := self._tree.notes.newest_seal(path):
                    lease.newest_seal = max(lease.newest_seal, seal)
                number, attr, children = await self._tree.directory(path)
                if self._machine is not None:
                    seal_programs(path, children, self._machine, lease.machine)
                return Directory(number, attr, children, *self._tree.notes.hides(path))
            case GetEntry(path=path):
                return Entry(await self._find_entry(lease, path))
            case GetFile():
                if self._machine is not None and reason_to_seal(message.path, self._machine, lease.machine):
                    raise Retryable(Reason.UNSEEN_PROGRAM, "/" + os.fsdecode(message.path))
                self._tree.load(split(message.path)[0], lease.worker)
                return await self._send_file(message, send_chunk)
            case ReadStdin(job=number):
                return StdinBytes(await self._read_stdin(self._job(lease, number), message))
            case StdinTaken(job=number, taken=taken):
                await self._job(lease, number).stdin.consume(taken)
                return Done()
            case _:
                raise RemoteProtocolError(f"a mirror must not send {type(message).__name__}")

    async def _send_file(self, asked: GetFile, send_chunk: SendChunk) -> File:
        path, mtime_ns = asked.path, asked.mtime_ns
        fd, digest = await self._tree.open_file(path, asked.size, mtime_ns)
        try:
            if digest == asked.candidate:
                return File(digest)
            if digest.size <= INLINE_BYTES:
                content = os.pread(fd, digest.size + 1, 0)
                _check_unchanged(fd, path, mtime_ns, digest, len(content))
                return File(digest, content)
            sent = await _send_content(fd, digest.size, send_chunk)
            _check_unchanged(fd, path, mtime_ns, digest, sent)
            return File(digest)
        except OSError as error:
            raise look_failed(path, error) from error
        finally:
            os.close(fd)

    async def _find_entry(self, lease: Lease, path: bytes) -> Attr | None:
        """Return a directory or a symlink that was not listed, or None.

        Jobs find their caches empty. Nobody knows which job of the lease looks.
        """
        name = "/" + os.fsdecode(path)
        commands = [job.command for job in self._jobs.values() if job.lease is lease and job.command is not None]
        if any(self._is_droppable(name, command) for command in commands):
            return None
        return await self._tree.private_entry(path)

    def _job(self, lease: Lease, number: int) -> Job:
        job = self._jobs.get(number)
        if job is None or job.lease is not lease:
            raise FsError(EIO)  # the job was cancelled meanwhile, or belongs to another mirror
        return job

    async def _read_stdin(self, job: Job, asked: ReadStdin) -> bytes:
        size = max(1, min(asked.size, STDIN_LIMIT_BYTES))
        if asked.offset >= 0:
            return await job.stdin.read_at(asked.offset, size)
        return await job.stdin.read(size, peek=asked.peek)


async def _send_content(fd: int, size: int, send_chunk: SendChunk) -> int:
    """Send the first `size` bytes of a file, and return how many there are.

    The result is `size` + 1 if there are more: somebody appends to the file.
    """
    sent = 0
    content = pieces(fd, size + 1, DATA_BYTES)
    while piece := await trio.to_thread.run_sync(next, content, None):
        length = piece if isinstance(piece, int) else len(piece)
        if sent < size:
            most = min(length, size - sent)
            await send_chunk(pack_piece(most if isinstance(piece, int) else piece[:most]))
        sent += length
    return sent


def _check_unchanged(fd: int, path: bytes, mtime_ns: int, digest: Digest, sent: int) -> None:
    # The digest is of the contents when the file was opened. A receiver that gets other contents
    # drops the connection, so a change is reported instead.
    now = os.fstat(fd)
    if (sent, now.st_size, wire_ns(now.st_mtime_ns)) != (digest.size, digest.size, mtime_ns):
        raise Stale(path)
