"""A hostile worker for a real coordinator and a real master, over TLS, with the right secret.

It answers each command with the attack that the command names. All else is the product's own wire
code, in a thread of the tests.
"""

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import trio

from termite.engine.errors import TermiteError
from termite.engine.model import Attr, Change, Digest, Exit, MachineFacts, Usage
from termite.engine.wire.addresses import split_address
from termite.engine.wire.authority import Role, mint
from termite.engine.wire.protocol.fleet_messages import Register
from termite.engine.wire.protocol.frames import Kind, encode_frame
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import (
    PROTOCOL,
    Done,
    GetBlob,
    Leased,
    OpenLease,
    Ran,
    Run,
)
from termite.engine.wire.transport import Connection, SendChunk, accepted, dial
from tests.e2e.cluster import HOST

# One worker under many names: a master rests a name that has failed, and asks the next one at once.
NAMES = 200
HEARTBEAT_S = 5.0
FALSE = b"false\n"  # what each hostile result has for the output of its command

Answer = Callable[["HostileWorker", Connection, Run], Awaitable[Message]]
Send = Callable[["HostileWorker", GetBlob, SendChunk], Awaitable[None]]


def digest(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).digest(), len(content))


def plain(content: bytes, mode: int = 0o100644, *, mtime_ns: int = 10**18) -> Attr:
    return Attr(mode, len(content), mtime_ns, digest(content))


def ran(changes: Sequence[Change] = (), *contents: bytes, dropped: Sequence[bytes] = ()) -> Ran:
    """Return a result with small contents inside."""
    now = time.time_ns()
    inline = {digest(content).sha256: content for content in contents}
    return Ran(Exit(0), Usage(), tuple(changes), inline, now - 10**7, now, tuple(dropped))


class HostileWorker:
    """A worker that has many names, and an attack for each command.

    `answers` has what is answered to a command `: ATTACK ...`, and `blobs` what is sent for its
    contents.
    """

    def __init__(self, answers: Mapping[str, Answer], blobs: Mapping[str, Send]) -> None:
        self._answers = answers
        self._blobs = blobs
        self.asked: Counter[str] = Counter()
        self.sent_bytes: Counter[str] = Counter()
        self.learnt: list[object] = []  # what the master has answered to forbidden requests
        self.root = b""  # below which a result may lie, without a slash in front
        self._attack = ""  # of the last command
        self._error: BaseException | None = None

    async def serve(self, stream: trio.SocketStream, secret: bytes) -> None:
        async def answer(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
            match message:
                case OpenLease():
                    self.root = message.writable_root
                    return Leased("hostile", message.slots, time.time_ns(), MachineFacts())
                case Run():
                    found = re.match(rb": ([^;]+);", message.argv[-1])
                    assert found is not None, message.argv
                    self._attack = found[1].decode()
                    self.asked[self._attack] += 1
                    return await self._answers[self._attack](self, connection, message)
                case GetBlob() if send := self._blobs.get(self._attack):
                    await send(self, message, send_chunk)
            return Done()

        with suppress(TermiteError):
            async with accepted(stream, mint(secret, "hostile", Role.MIRROR), answer) as connection:
                await connection.lost.wait()

    def output(self) -> Change:
        """Return the change by which each result gives its command a false output."""
        return Change(self.root + b"/out-" + self._attack.encode(), plain(FALSE))

    def lie(self, *changes: Change, contents: Sequence[bytes] = (), dropped: Sequence[bytes] = ()) -> Ran:
        """Return a result with the false output and more changes."""
        return ran((self.output(), *changes), FALSE, *contents, dropped=dropped)

    def below(self, name: bytes) -> bytes:
        return self.root + b"/" + name


def post(connection: Connection, *frames: bytes) -> None:
    """Send bytes that no honest worker would send now."""
    for frame in frames:
        connection._outbox.post(frame)


def stream_of(connection: Connection) -> int:
    """Return the stream of the request that is answered now."""
    return max(connection._handlers)


def reply(connection: Connection, payload: bytes, kind: Kind = Kind.REPLY) -> bytes:
    return encode_frame(kind, stream_of(connection), payload)


async def _refuse(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
    raise AssertionError(message)


@contextmanager
def hostile_worker(worker: HostileWorker, coordinator: str, secret: bytes) -> Iterator[None]:
    """Register a worker at a coordinator, and serve it in a thread until the block ends."""
    started, stop = threading.Event(), trio.Event()
    tokens: list[trio.lowlevel.TrioToken] = []

    async def live() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host=HOST)
            nursery.start_soon(trio.serve_listeners, lambda stream: worker.serve(stream, secret), listeners)
            address = f"{HOST}:{listeners[0].socket.getsockname()[1]}"
            host, port = split_address(coordinator, 0)
            async with dial(host, port, mint(secret, "hostile", Role.CLIENT), _refuse) as connection:
                while not stop.is_set():
                    for number in range(NAMES):
                        await connection.request(
                            Register(PROTOCOL, f"hostile-{number:03}", address, 1, 0, 0.0, 1 << 30)
                        )
                    tokens[:] = [trio.lowlevel.current_trio_token()]
                    started.set()
                    with trio.move_on_after(HEARTBEAT_S):
                        await stop.wait()
            nursery.cancel_scope.cancel()

    def run() -> None:
        try:
            trio.run(live)
        except BaseException as error:
            worker._error = error
        started.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(30) and worker._error is None, worker._error
        yield
    finally:
        if tokens:
            with suppress(trio.RunFinishedError):
                tokens[0].run_sync_soon(stop.set)
        thread.join(30)
    assert not thread.is_alive() and worker._error is None, worker._error


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has had."""
    with open(f"/proc/{pid}/status") as status:
        (line,) = [line for line in status if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
