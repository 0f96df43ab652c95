"""Simulated workers: real registration, real TLS and real leases, but no mount, sandbox or command.

    python -m bench.simulated COORDINATOR SECRET_FILE NAME WORKERS SLOTS RECORDED INTERVALS_FILE [--sleep]

A worker answers a job with results of the sizes that were recorded of a real build. The answer
comes at once or, with `--sleep`, after the recorded CPU time. Before the first result into a
directory it asks the master for that directory, as a mirror would. On SIGTERM the program writes
the begin and the end of each job (CLOCK_MONOTONIC, seconds) into INTERVALS_FILE.

A job's command is `job NUMBER PATH`: the number of the recorded command, and the path of its first
result.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from stat import S_IFDIR, S_IFREG

import trio

from bench.record import Recorded, read_recorded
from termite.engine.errors import RemoteProtocolError, TermiteError
from termite.engine.model import Attr, Change, Digest, Exit, MachineFacts, Usage
from termite.engine.wire.addresses import listen, port_of, split_address
from termite.engine.wire.authority import Role, mint
from termite.engine.wire.identity import read_secret
from termite.engine.wire.protocol.fleet_messages import Register
from termite.engine.wire.protocol.frames import DATA_BYTES, MAX_CHUNK_BYTES, pack_piece
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import (
    INLINE_BYTES,
    INLINE_TOTAL_BYTES,
    PROTOCOL,
    Done,
    GetBlob,
    GetDirectory,
    Leased,
    OpenLease,
    Ran,
    Run,
)
from termite.engine.wire.transport import Connection, SendChunk, accepted
from termite.engine.worker.registration import stay_registered

HOST = "127.0.0.1"
_FILE = S_IFREG | 0o644
_DIRECTORY = S_IFDIR | 0o755


class Contents:
    """A set of incompressible contents with their digests, one for each size."""

    def __init__(self) -> None:
        self._by_size: dict[int, tuple[Digest, bytes]] = {}
        self._by_digest: dict[bytes, bytes] = {}

    def of_size(self, size: int) -> tuple[Digest, bytes]:
        """Return the content of `size` bytes and its digest; make it if needed."""
        if size not in self._by_size:
            content = random.Random(size).randbytes(size)
            digest = Digest(sha256(content).digest(), size)
            self._by_size[size] = digest, content
            self._by_digest[digest.sha256] = content
        return self._by_size[size]

    def find(self, digest: Digest) -> bytes:
        """Return a content that `of_size` has made."""
        return self._by_digest[digest.sha256]


class Simulated:
    """A group of simulated workers in this process, which share contents and intervals."""

    def __init__(self, recorded: tuple[Recorded, ...], slots: int, sleeps: bool) -> None:
        self.intervals: list[tuple[float, float]] = []
        self._recorded = recorded
        self._slots = slots
        self._sleeps = sleeps
        self._contents = Contents()

    async def serve(self, name: str, secret: bytes, coordinator: str, task_status: trio.TaskStatus[None]) -> None:
        """Run one worker until cancelled."""
        listeners = await listen(HOST, 0, "worker")
        host, port = split_address(coordinator, 0)

        def describe() -> Register:
            return Register(PROTOCOL, name, f"{HOST}:{port_of(listeners)}", self._slots, 0, 0.0, 2**33)

        async def lease(stream: trio.SocketStream) -> None:
            one = _Lease(name, self._slots, self)
            try:
                async with accepted(stream, mint(secret, name, Role.MIRROR), one.answer) as connection:
                    await connection.lost.wait()
            except TermiteError as error:
                print(f"{name}: {error}", file=sys.stderr)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stay_registered, host, port, secret, name, describe)
            await nursery.start(trio.serve_listeners, lease, listeners)
            task_status.started()

    async def run(self, connection: Connection, run: Run, asked: set[bytes], send_chunk: SendChunk) -> Ran:
        """Answer a job with its recorded results. `asked` has the directories that it knows."""
        number, path = int(run.argv[1]), run.argv[2]
        directory = os.path.dirname(path)
        if directory not in asked:
            asked.add(directory)
            await connection.request(GetDirectory(directory))
        job = self._recorded[number]
        began, began_ns = time.monotonic(), time.time_ns()
        if self._sleeps:
            await trio.sleep(job.cpu_s)
        self.intervals.append((began, time.monotonic()))
        if job.printed:
            await send_chunk(b"1" + b"." * min(job.printed, MAX_CHUNK_BYTES - 1))
        ended_ns = time.time_ns()
        changes, inline = results(self._contents, job, path, ended_ns)
        usage = Usage(job.cpu_s, job.cpu_s, 0.0, 0, 0)
        return Ran(Exit(0), usage, changes, inline, began_ns, ended_ns)

    async def send(self, digest: Digest, send_chunk: SendChunk) -> Done:
        """Send the content of this digest in chunks."""
        content = self._contents.find(digest)
        for at in range(0, len(content), DATA_BYTES):
            await send_chunk(pack_piece(content[at : at + DATA_BYTES]))
        return Done()


def results(
    contents: Contents, job: Recorded, path: bytes, now_ns: int
) -> tuple[tuple[Change, ...], dict[bytes, bytes]]:
    """Return changes and inline contents as a mirror harvests them.

    The first change is of the directory that got the new files; one change for each file follows.
    """
    changes = [Change(os.path.dirname(path), Attr(_DIRECTORY, 0, now_ns), content=False)]
    inline: dict[bytes, bytes] = {}
    for number, size in enumerate(job.outputs):
        digest, content = contents.of_size(size)
        changes.append(Change(path if not number else b"%s.%d" % (path, number), Attr(_FILE, size, now_ns, digest)))
        if size <= INLINE_BYTES and sum(map(len, inline.values())) + size <= INLINE_TOTAL_BYTES:
            inline[digest.sha256] = content
    return tuple(changes), inline


class _Lease:
    """A lease answers the master's requests on one connection, in place of a mirror process."""

    def __init__(self, worker: str, slots: int, simulated: Simulated) -> None:
        self._worker = worker
        self._slots = slots
        self._simulated = simulated
        self._asked: set[bytes] = set()  # directories

    async def answer(self, connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        match message:
            case OpenLease():
                return Leased(self._worker, min(self._slots, message.slots), time.time_ns(), MachineFacts())
            case Run():
                return await self._simulated.run(connection, message, self._asked, send_chunk)
            case GetBlob():
                return await self._simulated.send(message.digest, send_chunk)
        raise RemoteProtocolError(f"a simulated worker does not answer {type(message).__name__}")


async def _serve(simulated: Simulated, arguments: list[str]) -> None:
    coordinator, secret_file, name, workers = arguments[:4]
    secret = read_secret(Path(secret_file))
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            for number in range(int(workers)):
                await nursery.start(simulated.serve, f"{name}-{number}", secret, coordinator)
            print(f"simulated: listens on {HOST}", flush=True)
            await _first(signals)
            nursery.cancel_scope.cancel()


async def _first(signals: AsyncIterator[int]) -> None:
    async for _ in signals:
        return


def main() -> None:
    """Run the workers of the command line until a signal; then write their intervals."""
    arguments = [word for word in sys.argv[1:] if not word.startswith("--")]
    simulated = Simulated(read_recorded(arguments[5]), int(arguments[4]), "--sleep" in sys.argv)
    trio.run(_serve, simulated, arguments)
    Path(arguments[6]).write_text(json.dumps(simulated.intervals))


if __name__ == "__main__":
    main()
