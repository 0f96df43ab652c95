"""Tests of the worker with a stand-in for the mirror: leases, shares, deaths and leftovers."""

import errno
import json
import logging
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing

from termite.cli.readers.farm_questions import Coordinator
from termite.engine.errors import UserError
from termite.engine.fleet.coordinator import CoordinatorConfig, serve_coordinator
from termite.engine.wire.addresses import split_address
from termite.engine.wire.authority import Role, member_key, mint
from termite.engine.wire.identity import make_proof
from termite.engine.wire.protocol.fleet_messages import ListedWorker, ListWorkers, WholeFarm, Workers
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import PROTOCOL
from termite.engine.wire.transport import Connection, SendChunk, dial
from termite.engine.worker import mirror_process as mirrors
from termite.engine.worker import registration, worker_calls
from termite.engine.worker import worker_daemon as workers
from termite.engine.worker.worker_daemon import WorkerConfig, serve_worker

SECRET = b"the secret of the tests"
FAKE_MIRROR = Path(__file__).parent / "fake_mirror.py"
# A stand-in for `termite-sandbox enter`: the parent stays, and ends as its child did.
SANDBOX = '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\n"$@" <&0 & wait $!\n'

PROOF_BYTES = len(make_proof(b""))
# A record of a TLS handshake, up to the proof that the master is a member: no more is looked at.
HELLO_HEAD = b"\x16\x03\x01" + PROOF_BYTES.to_bytes(2, "big")

Start = Callable[..., WorkerConfig]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Return a configuration with the given changes."""
    sandbox = tmp_path / "termite-sandbox"
    sandbox.write_text(SANDBOX)
    sandbox.chmod(0o755)
    (tmp_path / "tmp").mkdir()

    def config(slots: int = 8, coordinator: str = "", program: Path = FAKE_MIRROR, port: int = 0) -> WorkerConfig:
        return WorkerConfig(
            secret=SECRET,
            slots=slots,
            coordinator=coordinator,
            cache=tmp_path / "cache",
            tmpdir=tmp_path / "tmp",
            sandbox=sandbox,
            tmpfs=True,
            name="w",
            listen="127.0.0.1",
            port=port,
            program=(sys.executable, "-I", "-S", str(program)),
        )

    return config


@asynccontextmanager
async def worker(config: WorkerConfig) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_worker, config)
        yield split_address(address, 0)[1]
        nursery.cancel_scope.cancel()


class Master:
    """The master's end of a connection, which exchanges lines with the worker."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.scratch_bytes: list[int] = []  # as the worker has told the mirror
        self._received = b""

    async def tell(self, line: str) -> None:
        await self.stream.send_all(line.encode() + b"\n")

    async def say(self, **values: object) -> None:
        await self.tell(json.dumps(values))

    async def hear(self) -> object:
        """Return the next line, without the size of the scratch space."""
        while True:
            while b"\n" not in self._received:
                received = await self.stream.receive_some()
                assert received, "the mirror is gone"
                self._received += received
            line, _, self._received = self._received.partition(b"\n")
            heard = json.loads(line) if line != b"said" else "said"
            if not isinstance(heard, dict) or "scratch_bytes" not in heard:
                return heard
            self.scratch_bytes.append(heard.pop("scratch_bytes"))
            if heard:
                return heard

    async def wait_for_end(self) -> None:
        assert await self.stream.receive_some() == b""


@asynccontextmanager
async def master(port: int, lease: int | None = None, name: str = "m") -> AsyncIterator[Master]:
    with trio.fail_after(20):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(HELLO_HEAD + make_proof(member_key(SECRET)).encode())
            one = Master(stream)
            if lease is not None:
                await one.say(lease=lease, master=name)
            yield one


async def test_a_lease_is_granted_what_is_there(start: Start) -> None:
    async with worker(start(slots=8)) as port:
        async with master(port, lease=3) as modest:
            assert await modest.hear() == {"granted": 3}
        async with master(port, lease=100) as greedy:
            assert await greedy.hear() == {"granted": 8}


async def test_two_masters_share_and_the_one_that_stays_gets_all_back(start: Start) -> None:
    async with worker(start(slots=8)) as port, master(port, lease=100, name="a") as first:
        assert await first.hear() == {"granted": 8}
        async with master(port, lease=100, name="b") as second:
            assert await second.hear() == {"granted": 4}
            assert await first.hear() == {"slots": 4}
        assert await first.hear() == {"slots": 8}


async def test_masters_share_the_scratch_space_and_then_the_leases_of_each(start: Start) -> None:
    config = replace(start(slots=4), scratch_bytes=1200)
    async with worker(config) as port, master(port, lease=9, name="a") as first:
        assert await first.hear() == {"granted": 4}
        assert first.scratch_bytes == [1200]
        async with master(port, lease=9, name="b") as greedy, master(port, lease=9, name="b") as again:
            for one in (greedy, again):
                while one.scratch_bytes[-1:] != [300]:
                    await one.hear()
            while len(first.scratch_bytes) < 2:
                await first.hear()
            assert first.scratch_bytes[-1] == 600
        assert await first.hear() == {"slots": 4}
        assert first.scratch_bytes[-1] == 1200


async def test_a_greedy_master_gets_no_more_slots_by_more_leases_and_only_so_many(
    start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "REFUSAL_S", 0.2)
    async with worker(start(slots=8)) as port, AsyncExitStack() as stack:
        for _ in range(workers.MAX_LEASES_OF_MASTER):
            greedy = await stack.enter_async_context(master(port, lease=100, name="greedy"))
            await greedy.hear()
        async with master(port, lease=100, name="greedy") as refused:
            assert await refused.hear() == {"refused": workers.MAX_LEASES_OF_MASTER}
            await refused.wait_for_end()
        async with master(port, lease=100, name="honest") as honest:
            assert await honest.hear() == {"granted": 4}
    assert caplog.text.count("lease-refused") == 1


async def test_the_mirror_gets_its_configuration_and_nothing_of_our_environment(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for mirrors")
    async with worker(start()) as port, master(port) as one:
        await one.tell("!config")
        config = cast(dict[str, object], await one.hear())
        assert {"certificate", "key", "authority", "socket_fd", "control_fd"} < set(config)
        assert (config["worker"], config["tmpfs"], config["log_level"]) == ("w", True, "info")
        for name in ("cache", "scratch"):
            assert stat.S_IMODE(os.stat(str(config[name])).st_mode) == 0o700
        await one.tell("!environment")
        environment, cwd, own_session = cast(tuple[dict[str, str], str, bool], await one.hear())
        ours = {"PATH", "PYTHONPATH", "TERMITE_NATIVE", "LANG", "LC_CTYPE"}
        assert set(environment) <= ours | {
            "PWD",
            "OLDPWD",
            "SHLVL",
            "_",
        }  # a shell stands in for the sandbox
        assert cwd == "/"
        assert not own_session  # its sandbox leads the session
    assert not is_there(str(config["scratch"]))


def is_there(path: str) -> bool:
    return os.path.exists(path)


async def test_a_mirror_that_dies_is_logged_with_its_last_words_and_frees_its_slots(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(start(slots=2)) as port:
        async with master(port, lease=2) as one:
            assert await one.hear() == {"granted": 2}
            await one.tell("!die the disk is on fire")
            await one.wait_for_end()
        async with master(port, lease=2) as other:
            assert await other.hear() in ({"granted": 2}, {"granted": 1})
    (warning,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert "mirror-died" in warning
    assert "code=7" in warning
    assert "the disk is on fire" in warning


async def test_a_mirror_that_cannot_serve_is_shown_once(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    async with worker(start()) as port:
        for _ in range(2):
            async with master(port) as one:
                await one.say(unfit="unfit-worker", detail="there is no /dev/fuse", hint="modprobe fuse")
                await one.tell("!exit 0")
                await one.wait_for_end()
    assert caplog.text.count("there is no /dev/fuse") == 1
    assert "modprobe fuse" in caplog.text


@pytest.mark.parametrize(
    "nonsense",
    [
        "nonsense",
        "[1]",
        '{"lease": "many"}',
        '{"lease": 1',
        '{"lease": -5}',
        '{"lease": 1000000000}',
        '{"lease": 1, "master": "a\\nb"}',
        '{"jobs": -1}',
        '{"unfit": "a reason that nobody knows"}',
        "\xff",
        "x" * 100_000,
    ],
)
async def test_a_mirror_that_talks_nonsense_is_ended(
    start: Start, nonsense: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(start()) as port:
        async with master(port) as one:
            await one.tell(nonsense)
            await one.wait_for_end()
        async with master(port, lease=1) as other:
            assert await other.hear() == {"granted": 1}


async def test_what_a_mirror_says_cannot_pass_for_a_line_of_the_log(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(start()) as port:
        async with master(port) as one:
            await one.tell("!die x\x1b]0;title\x07\rWARNING d")
            await one.wait_for_end()
        async with master(port, lease=1) as other:
            await other.say(unfit="disk-full", detail="a\nWARNING b \x1b[2J", hint="\x9b0m\u2028c")
            with trio.fail_after(10):
                while "mirror-unfit" not in caplog.text:  # noqa: ASYNC110  # a log tells nobody
                    await trio.sleep(0.01)
    messages = [record.getMessage() for record in caplog.records]
    assert any("\\x1b]0;title" in message for message in messages)
    assert all(message.isprintable() for message in messages)


async def test_a_mirror_can_complain_once_for_each_reason(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    async with worker(start()) as port, master(port) as one:
        for number in range(9):
            await one.say(unfit=("unfit-worker", "disk-full", "no-resources")[number % 3], detail=f"trouble {number}")
        await one.tell("!exit 0")
        await one.wait_for_end()
    complaints = [record.getMessage() for record in caplog.records if "mirror-unfit" in record.getMessage()]
    assert [text.rpartition("reason=")[2] for text in complaints] == ["unfit-worker", "disk-full", "no-resources"]


async def test_a_stranger_without_a_lease_is_sent_away(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "LEASE_REQUEST_S", 0.05)
    async with worker(start()) as port, master(port) as one:
        await one.wait_for_end()
    assert "lease-not-requested" in caplog.text


async def test_strangers_wait_for_each_other_but_not_leases(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "MAX_UNAUTHENTICATED", 1)
    async with worker(start()) as port, master(port, lease=1) as known:
        assert await known.hear() == {"granted": 1}
        async with master(port) as stranger, master(port, lease=1) as waiting:
            await stranger.tell("!config")
            assert await stranger.hear()
            await stranger.stream.aclose()
            assert await waiting.hear() == {"granted": 1}


async def test_a_mirror_that_does_not_end_is_killed(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mirrors, "STOP_S", 0.05)
    async with worker(start()) as port, master(port, lease=1) as one:
        assert await one.hear() == {"granted": 1}
        await one.tell("!deaf")
        assert await one.hear() == "said"
        assert children()
    assert children() == []
    assert "mirror-killed" in caplog.text


async def test_a_mirror_of_which_there_is_no_descriptor_is_ended_and_the_next_one_serves(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused = iter((True,))

    def open_once_refused(pid: int) -> int:
        if next(refused, False):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return os.pidfd_open(pid)

    monkeypatch.setattr(worker_calls, "pidfd_open", open_once_refused)
    before = set(own_children())
    async with worker(start()) as port:
        async with master(port, lease=1) as unlucky:
            with suppress(trio.BrokenResourceError):
                await unlucky.wait_for_end()
        # It is waited for, and its home is cleared, perhaps just after its connection has ended.
        with trio.fail_after(5):
            while not set(own_children()) <= before or "mirror-not-started" not in caplog.text:  # noqa: ASYNC110
                await trio.sleep(0.01)
        async with master(port, lease=1) as next_one:
            assert await next_one.hear() == {"granted": 1}
    assert "mirror-crashed" not in caplog.text


def own_children() -> list[str]:
    return [words for file in Path("/proc/self/task").glob("*/children") for words in file.read_text().split()]


@pytest.mark.logs("mirror-killed")
async def test_a_worker_ends_though_what_waits_for_its_mirror_is_stopped(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "STOP_S", 0.05)
    with trio.fail_after(10):
        async with worker(start()) as port, master(port, lease=1) as one:
            assert await one.hear() == {"granted": 1}
            (stopped,) = map(int, children())
            os.kill(stopped, signal.SIGSTOP)
    assert children() == []


async def test_a_worker_that_ends_leaves_no_process_and_no_scratch(start: Start, tmp_path: Path) -> None:
    async with worker(start()) as port, master(port, lease=1) as one, master(port) as two:
        assert await one.hear() == {"granted": 1}
        await two.tell("!config")
        assert await two.hear()
        assert os.listdir(tmp_path / "tmp")
        assert children()
    assert os.listdir(tmp_path / "tmp") == []
    assert children() == []


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


async def test_what_a_killed_worker_left_is_removed_by_the_next(start: Start, tmp_path: Path) -> None:
    left = tmp_path / "tmp" / "termite-worker-old"
    (left / "0" / "closed").mkdir(parents=True)
    (left / "0" / "closed" / "file").touch()
    (left / "0" / "closed").chmod(0)
    async with worker(start()), worker(start()):
        assert not left.exists()
        assert len(os.listdir(tmp_path / "tmp")) == 2  # the second worker kept the directory of the first


async def test_a_port_in_use_is_one_clear_line(start: Start, tmp_path: Path) -> None:
    async with worker(start()) as port:
        with pytest.raises(UserError, match=f"port {port} is in use .*-port"):
            await serve_worker(start(port=port))
        assert len(os.listdir(tmp_path / "tmp")) == 1


async def listed(connection: Connection) -> ListedWorker:
    answer = await connection.request(ListWorkers(PROTOCOL, 0))
    while not (isinstance(answer, Workers) and answer.workers):
        answer = await connection.request(ListWorkers(PROTOCOL, 0))
    return answer.workers[0]


async def test_a_worker_is_known_to_its_coordinator(start: Start) -> None:
    async def refuse(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        raise AssertionError(message)

    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_coordinator, CoordinatorConfig(SECRET, "127.0.0.1", 0, 0.02))
        host, coordinator_port = split_address(address, 0)
        async with (
            worker(start(coordinator=address)) as port,
            dial(host, coordinator_port, mint(SECRET, "m", Role.CLIENT), refuse) as connection,
            master(port, lease=3) as one,
        ):
            assert await one.hear() == {"granted": 3}
            known = await listed(connection)
            while known.leased != 3:
                known = await listed(connection)
            assert (known.name, known.address, known.slots) == ("w", f"127.0.0.1:{port}", 8)
            assert known.free_memory_bytes > 0
        nursery.cancel_scope.cancel()


@dataclass
class RunningCoordinator:
    address: str
    scope: trio.CancelScope


async def cancellable_coordinator(port: int, task_status: trio.TaskStatus[RunningCoordinator]) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            config = CoordinatorConfig(SECRET, "127.0.0.1", port, 0.02)
            address = await nursery.start(serve_coordinator, config)
            task_status.started(RunningCoordinator(address, scope))


async def wait_for(asking: Coordinator, holds: Callable[[WholeFarm], bool]) -> WholeFarm:
    with trio.fail_after(10):
        while True:
            with suppress(UserError):  # it is not there yet
                async with asking.connected() as desk:
                    while True:
                        farm = await desk.list_farm()
                        if holds(farm):
                            return farm


@pytest.mark.logs("coordinator-missing")
async def test_a_drained_worker_gives_no_slots_and_says_so_to_the_next_coordinator(
    start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "FIRST_PAUSE_S", 0.05)
    caplog.set_level(logging.INFO)
    async with trio.open_nursery() as nursery:
        first = await nursery.start(cancellable_coordinator, 0)
        address = first.address
        place = split_address(address, 0)
        asking = Coordinator(place, SECRET, "test")
        worker_address = await nursery.start(serve_worker, start(slots=8, coordinator=address))
        async with master(split_address(worker_address, 0)[1], lease=3, name="home:/secret/tree") as one:
            assert await one.hear() == {"granted": 3}
            await one.say(running=2, jobs=5, cpu_s=1.5, job_s=4.0, busy_s=2.0)
            await wait_for(asking, lambda farm: bool(farm.workers) and farm.workers[0].worker.leased == 3)
            await asking.drain("w", is_drained=True)
            assert await one.hear() == {"slots": 0}
            assert (await wait_for(asking, lambda farm: True)).workers[0].worker.draining
            async with master(split_address(worker_address, 0)[1], lease=3, name="late") as late:
                assert await late.hear() == {"granted": 0}
            async with asking.connected() as desk:
                report = await desk.get_report("w")
            assert report.is_drained
            assert (report.total.jobs, report.total.cpu_s, report.leases[0].running) == (5, 1.5, 2)
            assert "secret/tree" not in repr(report)
            first.scope.cancel()
            await nursery.start(cancellable_coordinator, place[1])
            await wait_for(asking, lambda farm: bool(farm.workers) and farm.workers[0].worker.draining)
            await asking.drain("w", is_drained=False)
            assert await one.hear() == {"slots": 3}
        nursery.cancel_scope.cancel()
    assert "worker-drained running=2" in caplog.text and "worker-undrained" in caplog.text


async def test_a_worker_that_is_told_to_drain_ends_with_its_last_lease(start: Start) -> None:
    config = replace(start(slots=8), drain_signal=signal.SIGUSR2)
    async with trio.open_nursery() as nursery:
        ended = trio.Event()

        async def serve(task_status: trio.TaskStatus[str]) -> None:
            await serve_worker(config, task_status)
            ended.set()

        port = split_address(await nursery.start(serve), 0)[1]
        async with master(port, lease=3) as one:
            assert await one.hear() == {"granted": 3}
            os.kill(os.getpid(), signal.SIGUSR2)
            assert await one.hear() == {"slots": 0}
            async with master(port, lease=3, name="late") as late:
                assert await late.hear() == {"granted": 0}
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not ended.is_set()
        with trio.fail_after(10):
            await ended.wait()
