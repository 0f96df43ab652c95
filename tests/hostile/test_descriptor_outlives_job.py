"""A job passes a descriptor of its files to another job, which uses it after the first has ended.

The mirror then reads the result, or removes what is left.
"""

import hashlib
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from termite.engine.errors import Reason, Retryable
from termite.engine.wire.protocol.messages import Ran
from tests.e2e.mirrors import FakeMaster, Starter, mirror
from tests.hostile.attackers import LIMIT_S, WORKERS, attack, place_of, said, verdict, without_landlock

FILES = 2000  # reading so many takes a while
ROUNDS = 3
PATIENCE_S, SHORT_PATIENCE_S = 30.0, 4.0  # for who gives a descriptor; the second one where nobody should come

workers = pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS.keys())


@dataclass
class Round:
    """One attempt. `error`: the result was refused."""

    giver: list[bytes] = field(default_factory=list)
    taker: list[bytes] = field(default_factory=list)
    ran: Ran | None = None
    error: Retryable | None = None


async def attempt(
    master: FakeMaster, place: Path, kind: str, *, network: bool, count: int = FILES, patience_s: float = PATIENCE_S
) -> Round:
    """One job gives, the other one takes."""
    round, name = Round(), f"attack-{uuid.uuid4().hex}"

    async def take() -> None:
        words = (name, str(place / "home"), str(patience_s))
        await attack(master, "outlive_giver.py", *words, output=round.taker, network=network)

    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            try:
                words = (name, str(place / "project"), kind, str(count))
                round.ran = await attack(master, "give_descriptor.py", *words, output=round.giver, network=network)
            except Retryable as error:
                round.error = error
    print(kind, said(round.giver), said(round.taker), round.error)
    return round


def is_refused(round: Round) -> bool:
    return round.error is not None and round.error.reason is Reason.NOT_AT_REST


def private_paths(ran: Ran | None, private: bytes) -> list[bytes]:
    """Return the paths of a result that have the content of a private file of the worker's user."""
    digest = hashlib.sha256(private).digest()
    changes = ran.changes if ran else ()
    return [
        change.path for change in changes if change.attr and change.attr.digest and change.attr.digest.sha256 == digest
    ]


@workers
async def test_no_job_gets_a_descriptor_of_another_one_by_an_abstract_socket(worker: Starter) -> None:
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        async with mirror(master, place, worker):
            for network in (False, True):
                round = await attempt(master, place, "directory", network=network, count=1, patience_s=SHORT_PATIENCE_S)
                is_given = "given" in said(round.giver) or "nobody came" not in said(round.taker)
                assert verdict(is_given, f"a descriptor passed to another job, network={network}") == "HELD"
                assert "the socket may not be reached" in said(round.giver)


@workers
async def test_nor_where_the_kernel_has_no_landlock_unless_a_rule_gives_them_the_machines_network(
    worker: Starter,
) -> None:
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        async with mirror(master, place, without_landlock(worker)):
            round = await attempt(master, place, "directory", network=False, count=1, patience_s=SHORT_PATIENCE_S)
            assert verdict("nobody came" not in said(round.taker), "a descriptor passed to another job") == "HELD"
            assert "nobody listens there" in said(round.giver)


@workers
async def test_what_a_result_was_at_the_end_of_its_job_is_what_comes_home(worker: Starter) -> None:
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        async with mirror(master, place, without_landlock(worker)):
            for _ in range(ROUNDS):
                round = await attempt(master, place, "directory", network=True)
                assert "given" in said(round.giver), "the attack has begun"
                is_open = "could not: Read-only file system" not in said(round.taker)
                assert verdict(is_open, "a result exchanged after its end") == "HELD"
                private = (place / "home/key").read_bytes()
                assert verdict(bool(private_paths(round.ran, private)), "a private file sent as a result") == "HELD"
        assert (place / "home/key").stat().st_mode & 0o7777 == 0o600


@workers
async def test_a_result_that_somebody_can_still_write_to_is_refused(worker: Starter) -> None:
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        async with mirror(master, place, without_landlock(worker)):
            round = await attempt(master, place, "file", network=True, count=1)
            assert "given" in said(round.giver), "the attack has begun"
            assert verdict(not is_refused(round), "a result with a file open for writing elsewhere") == "HELD"
            assert await master.said("echo", "next") == b"next\n"


@workers
async def test_removing_what_a_job_has_left_follows_no_link(worker: Starter) -> None:
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        async with mirror(master, place, without_landlock(worker)):
            round = await attempt(master, place, "shm", network=True)
            assert "given" in said(round.giver), "the attack has begun"
            assert "until they were removed" in said(round.taker), "the attack has lasted until the removal"
        home = place / "home"
        is_hit = home.stat().st_mode & 0o7777 != 0o500 or [path.name for path in home.iterdir()] != ["key"]
        assert verdict(is_hit, "a directory of the worker's user, through a link, while a job's is removed") == "HELD"


DESCRIPTOR_IN_LOST_SOCKETS = """
import os, socket
file = open("lost", "w")
one, other = socket.socketpair()
for end in (one, other):
    socket.send_fds(end, [b"x"], [file.fileno(), one.fileno(), other.fileno()])
os._exit(0)
"""


@workers
async def test_a_descriptor_in_sockets_that_nobody_has_any_more_keeps_no_job_from_its_end(worker: Starter) -> None:
    """The kernel frees such sockets only when another one is closed, which pid 1 does."""
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        async with mirror(master, place, worker):
            for _ in range(ROUNDS):
                with trio.fail_after(LIMIT_S):
                    ran = await master.run("/usr/bin/python3", "-c", DESCRIPTOR_IN_LOST_SOCKETS)
                assert ran.exit.code == 0
