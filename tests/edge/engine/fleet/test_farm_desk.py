"""A coordinator shows its farm, and passes questions and wishes on to the worker that they name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest
import trio

from termite.cli.readers.farm_questions import Coordinator
from termite.engine.errors import RemoteProtocolError, Retryable, UserError
from termite.engine.fleet import farm_desk
from termite.engine.fleet.coordinator import CoordinatorConfig, serve_coordinator
from termite.engine.fleet.coordinator_dial import dial_coordinator
from termite.engine.wire.addresses import split_address
from termite.engine.wire.authority import Role, mint
from termite.engine.wire.protocol.fleet_messages import (
    DrainWorker,
    GetWorkerReport,
    LeaseReport,
    ListFarm,
    ListWorkers,
    Register,
    SlotUse,
    WorkerReport,
    Workers,
)
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import PROTOCOL, Done, Pong
from termite.engine.wire.transport import Connection, Handler, SendChunk, accepted, dial

SECRET = b"the secret of the tests"
KEY = b"sixteen bytes, or more"
USES = (SlotUse("anna@desk", 3, 1),)
BEAT = Register(PROTOCOL, "w", ":1235", 4, 3, 0.5, 2**30, release="9.9", uses=USES)


@asynccontextmanager
async def coordinator() -> AsyncIterator[tuple[str, int]]:
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_coordinator, CoordinatorConfig(SECRET, "127.0.0.1", 0, pages_key=KEY))
        yield split_address(address, 0)
        nursery.cancel_scope.cancel()


class AskedWorker:
    """A worker that answers as a real one would, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Message] = []
        self.answers: dict[type[Message], Message] = {}

    async def answer(self, connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        self.asked.append(message)
        if type(message) in self.answers:
            return self.answers[type(message)]
        match message:
            case GetWorkerReport(is_private=is_private):
                used = LeaseReport("anna@desk" if is_private else "", 9.0, 3, 1, 7, 2.5, 5.0, 4.0)
                return WorkerReport("w", False, 9.0, used, (used,), None, ("a record",))
            case DrainWorker():
                return Done()
        raise RemoteProtocolError(type(message).__name__)


@asynccontextmanager
async def registered(place: tuple[str, int], answer: Handler, beat: Register = BEAT) -> AsyncIterator[Connection]:
    async with dial_coordinator(place, SECRET, "w", answer) as connection:
        await connection.request(beat)
        yield connection


async def test_users_are_named_only_to_the_coordinators_own_pages() -> None:
    worker = AskedWorker()
    async with coordinator() as place, registered(place, worker.answer):
        for key, users, named in ((b"", (), ""), (KEY[:-1], (), ""), (KEY, USES, "anna@desk")):
            async with Coordinator(place, SECRET, "test", key).connected() as desk:
                (one,) = (await desk.list_farm()).workers
                assert (one.worker.name, one.worker.leased, one.release, one.uses) == ("w", 3, "9.9", users)
                report = await desk.get_report("w")
                assert (report.leases[0].user, report.leases[0].jobs) == (named, 7)
    asked = [message for message in worker.asked if isinstance(message, GetWorkerReport)]
    assert [message.is_private for message in asked] == [False, False, True]
    assert all(message.key == b"" for message in asked), "a worker never gets the key"


async def test_nobody_makes_a_report_private_without_the_key() -> None:
    worker = AskedWorker()
    async with coordinator() as place, registered(place, worker.answer), registered(place, worker.answer) as other:
        await other.request(GetWorkerReport(PROTOCOL, "w", b"", is_private=True))
    assert [message.is_private for message in worker.asked if isinstance(message, GetWorkerReport)] == [False]


async def test_a_coordinator_without_pages_has_no_key() -> None:
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_coordinator, CoordinatorConfig(SECRET, "127.0.0.1", 0))
        place = split_address(address, 0)
        async with registered(place, AskedWorker().answer), Coordinator(place, SECRET, "test").connected() as desk:
            assert (await desk.list_farm()).workers[0].uses == ()
        nursery.cancel_scope.cancel()


async def test_masters_hear_of_a_drained_worker_at_once() -> None:
    worker = AskedWorker()
    async with coordinator() as place, registered(place, worker.answer) as connection:
        listed = await connection.request(ListWorkers(PROTOCOL, 0))
        assert isinstance(listed, Workers)
        await Coordinator(place, SECRET, "test").drain("w", is_drained=True)
        with trio.fail_after(5):
            listed = await connection.request(ListWorkers(PROTOCOL, listed.version))
        assert isinstance(listed, Workers) and listed.workers[0].draining
        assert worker.asked == [DrainWorker(PROTOCOL, "w", True)]


async def test_a_worker_that_is_not_there_or_does_not_answer_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hang(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(farm_desk, "ANSWER_S", 0.1)
    async with coordinator() as place, registered(place, hang):
        asking = Coordinator(place, SECRET, "test")
        for name, said in (("v", "there is no worker v"), ("w", "the worker cannot be asked: .*in 0.1 s")):
            with pytest.raises(UserError, match=said):
                await asking.drain(name, is_drained=True)
        async with asking.connected() as desk:
            assert not (await desk.list_farm()).workers[0].worker.draining


async def test_a_worker_that_left_or_answers_nonsense_harms_only_the_question() -> None:
    worker = AskedWorker()
    worker.answers = {DrainWorker: Pong(1), GetWorkerReport: Done()}
    async with coordinator() as place:
        asking = Coordinator(place, SECRET, "test")
        async with registered(place, worker.answer), asking.connected() as desk:
            with pytest.raises(UserError, match=r"the worker cannot be asked: .*w answered with Pong"):
                await desk.drain("w", is_drained=True)
            with pytest.raises(UserError, match="w answered with Done"):
                await desk.get_report("w")
        with pytest.raises(UserError, match="there is no worker w"), trio.fail_after(5):
            while True:  # until the coordinator sees that the connection has ended
                await asking.drain("w", is_drained=True)


@pytest.mark.logs("peer-refused")
async def test_another_version_is_told_so() -> None:
    async with coordinator() as place, registered(place, AskedWorker().answer) as connection:
        questions = (ListFarm(PROTOCOL + 1), GetWorkerReport(PROTOCOL + 1, "w"), DrainWorker(PROTOCOL + 1, "w", True))
        for question in questions:
            with pytest.raises(UserError, match="speaks protocol"):
                await connection.request(question)


@pytest.mark.logs("connection-dropped")
async def test_a_worker_answers_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """A mirror's certificate makes no coordinator; a real one asks a worker two things only."""
    from termite.engine.host.log_tail import LogTail
    from termite.engine.worker.reports.worker_questions import WorkerQuestions

    questions = WorkerQuestions(None, LogTail(), None)  # type: ignore[arg-type]
    async with coordinator() as place, registered(place, questions.answer) as connection:
        with pytest.raises(RemoteProtocolError):
            await questions.answer(connection, ListFarm(PROTOCOL), None)  # type: ignore[arg-type]


async def test_a_mirrors_certificate_asks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        raise AssertionError

    async with coordinator() as place:
        with pytest.raises((UserError, Retryable)):
            async with dial(*place, mint(SECRET, "stolen", Role.MIRROR), refuse) as connection:
                await connection.request(ListFarm(PROTOCOL, KEY))
    assert "peer-refused" in caplog.text


def test_the_messages_are_small() -> None:
    workers = msgspec.msgpack.encode(BEAT)
    assert len(workers) < 150


async def test_nobody_registers_with_a_mirror_that_pretends_to_be_a_coordinator() -> None:
    async def drain(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        raise AssertionError("it was taken for a coordinator")

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(UserError, Retryable):
            async with accepted(stream, mint(SECRET, "stolen", Role.MIRROR), drain) as connection:
                await connection.lost.wait()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        with pytest.raises(UserError, match="is no coordinator of this version"):
            async with registered(("127.0.0.1", listeners[0].socket.getsockname()[1]), AskedWorker().answer):
                raise AssertionError
        nursery.cancel_scope.cancel()
