"""Workers that only register with a real coordinator, and answer what people ask of a worker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from termite.engine.errors import RemoteProtocolError
from termite.engine.fleet.coordinator_dial import dial_coordinator
from termite.engine.model import MachineFacts
from termite.engine.wire.protocol.fleet_messages import (
    DrainWorker,
    GetWorkerReport,
    LeaseReport,
    Register,
    SlotUse,
    StoreReport,
    WorkerReport,
)
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import PROTOCOL, Done
from termite.engine.wire.transport import Connection, Handler, SendChunk

HOSTILE_NAME = "<script>document.title='stolen'</script>\u202e"
HOSTILE_RECORD = f'{HOSTILE_NAME}"><img src=x onerror="document.title=\'stolen\'">\x1b]0;stolen\x07'
USER = "anna@desk"


def worker_name(number: int) -> str:
    """Return the name of a worker; the first one is hostile."""
    return f"w{number:03}" if number else HOSTILE_NAME


def beat_of(number: int, count: int, *, is_drained: bool = False) -> Register:
    """Return the heartbeat of a worker, of so many."""
    uses = (SlotUse(USER, 5, 3), SlotUse(f"user{number % 7}@host{number % 5}", 2, 1))
    return Register(
        PROTOCOL,
        worker_name(number),
        f"10.0.{number // 250}.{number % 250}:1235",
        8,
        7,
        load=1.5 + number / count,
        free_memory_bytes=(number + 1) << 28,
        draining=is_drained,
        machine=MachineFacts("x86_64", "Linux 6.1", "a processor", b"", 8, 8),
        release="9.9",
        uses=uses,
    )


def report_of(name: str, *, is_drained: bool) -> WorkerReport:
    """Return the report of a worker, whose log is hostile."""
    total = LeaseReport("", 7200.0, 7, 4, 1234, 3600.0, 5000.0, 1000.0)
    leases = (
        LeaseReport(USER, 600.0, 5, 3, 900, 2000.0, 2400.0, 600.0),
        LeaseReport("berta@lap", 60.0, 2, 1, 34, 20.0, 40.0, 30.0),
    )
    start = "2026-11-30 07:08:55.612 INFO    lease-granted"
    log = tuple(f"{start} number={number} {HOSTILE_RECORD}" for number in range(200))
    stores = (StoreReport("cas", 7 << 30, 12_345, 20 << 30, 10**6),)
    return WorkerReport(name, is_drained, 7200.0, total, leases, stores, log)


def answer_as_workers(drained: set[str]) -> Handler:
    """Return a function that answers what people ask of workers. `drained` gets their names."""

    async def answer(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        match message:
            case DrainWorker(name=name, is_drained=is_drained):
                (drained.add if is_drained else drained.discard)(name)
                return Done()
            case GetWorkerReport(name=name):
                return report_of(name, is_drained=name in drained)
        raise RemoteProtocolError(type(message).__name__)

    return answer


@asynccontextmanager
async def farm_of_workers(coordinator: tuple[str, int], secret: bytes, count: int) -> AsyncIterator[set[str]]:
    """Register so many workers over one connection. Yield the names of those that are drained."""
    drained: set[str] = set()
    async with dial_coordinator(coordinator, secret, "farm", answer_as_workers(drained)) as connection:
        for number in range(count):
            await connection.request(beat_of(number, count), timeout_s=10)
        yield drained
