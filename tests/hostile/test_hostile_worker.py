"""A hostile worker answers the commands of a real master, over the real protocol.

Such a command ends as a plain one does, because it runs again on the master's machine. Nothing
outside the tree changes, and the master goes on. HOSTILE_SEED (default: 1) decides
what the random answers are.
"""

import errno
import os
import random
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import trio

from termite.engine.errors import FsError, TermiteError, UserError
from termite.engine.model import Attr, Change, Digest
from termite.engine.wire.protocol.fleet_messages import Register
from termite.engine.wire.protocol.frames import DATA_BYTES, Kind, encode_frame, pack_piece
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import (
    MAX_CHANGES,
    MAX_DROPPED,
    PROTOCOL,
    Done,
    GetBlob,
    GetDirectory,
    GetFile,
    Ran,
    ReadStdin,
    Run,
    SetSlots,
)
from termite.engine.wire.transport import Connection, SendChunk
from tests.e2e.cluster import Cluster, cluster, new_tree
from tests.e2e.conftest import USERS, MakePlace
from tests.hostile.attackers import verdict
from tests.hostile.hostile_worker import (
    FALSE,
    Answer,
    HostileWorker,
    Send,
    digest,
    hostile_worker,
    peak_bytes,
    plain,
    post,
    ran,
    reply,
)
from tests.hostile.masters import listed
from tests.hostile.test_random_attacks import SEED, random_change

TRUE = b"true\n"
SCRIPT = b"#!/bin/sh\nid\n"
ENOUGH = 64 * 1024 * 1024  # as an endless content ends in this test at the latest
PROMISED = 100_000
PART = 1000  # entries of one part of a reply
# More names than ext4 gives one file are published in 15 s: `make torture` has the time.
FIFO_LINKS = 65_010 if "HOSTILE_SEED" in os.environ else 3
# An attack may cost so much of the master's memory: the largest message takes 60 MiB there, and a
# command is tried three times.
MORE_BYTES = 256 * 1024 * 1024
PATIENCE_S = 60
ROUNDS = 6  # of random answers
encode = msgspec.msgpack.encode

ANSWERS: dict[str, Answer] = {}
BLOBS: dict[str, Send] = {}
ACCEPTED = set[str]()  # attacks after which the result may also count


def attack(answer: Answer) -> Answer:
    ANSWERS[answer.__name__] = answer
    return answer


def harmless(answer: Answer) -> Answer:
    """Register an answer that may be a result: it must only do no harm."""
    ACCEPTED.add(answer.__name__)
    return attack(answer)


def blob(send: Send) -> Send:
    BLOBS[send.__name__.removesuffix("_blob")] = send
    return send


def promise(worker: HostileWorker, content: Digest) -> Message:
    """Return a result whose content is only promised."""
    return worker.lie(Change(worker.below(b"made"), Attr(0o100644, content.size, 10**18, content)))


# -- contents ---------------------------------------------------------------------------------------------------------


@attack
async def endless(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    return promise(worker, Digest(bytes(32), PROMISED))


@blob
async def endless_blob(worker: HostileWorker, request: GetBlob, send_chunk: SendChunk) -> None:
    while worker.sent_bytes["endless"] < ENOUGH:
        await send_chunk(pack_piece(bytes(DATA_BYTES)))
        worker.sent_bytes["endless"] += DATA_BYTES


@attack
async def too_long(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    return promise(worker, digest(bytes(PROMISED)))


@blob
async def too_long_blob(worker: HostileWorker, request: GetBlob, send_chunk: SendChunk) -> None:
    await send_chunk(pack_piece(bytes(PROMISED)))
    await send_chunk(pack_piece(b"x"))


@attack
async def too_short(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    return promise(worker, digest(bytes(PROMISED)))


@blob
async def too_short_blob(worker: HostileWorker, request: GetBlob, send_chunk: SendChunk) -> None:
    await send_chunk(pack_piece(bytes(PROMISED - 1)))


@attack
async def endless_hole(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    return promise(worker, digest(bytes(PROMISED)))


@blob
async def endless_hole_blob(worker: HostileWorker, request: GetBlob, send_chunk: SendChunk) -> None:
    for _ in range(4):
        await send_chunk(pack_piece(2**63 - 1))


@attack
async def no_piece(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    return promise(worker, digest(bytes(PROMISED)))


@blob
async def no_piece_blob(worker: HostileWorker, request: GetBlob, send_chunk: SendChunk) -> None:
    await send_chunk(b"\x07no piece")


@attack
async def wrong_digest(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    return promise(worker, digest(bytes(PROMISED)))


@blob
async def wrong_digest_blob(worker: HostileWorker, request: GetBlob, send_chunk: SendChunk) -> None:
    await send_chunk(pack_piece(b"x" * PROMISED))


@attack
async def no_blob(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    return promise(worker, digest(bytes(PROMISED)))


@blob
async def no_blob_blob(worker: HostileWorker, request: GetBlob, send_chunk: SendChunk) -> None:
    raise FsError(errno.EIO)


@attack
async def wrong_digest_inside(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    honest = worker.lie(Change(worker.below(b"made"), plain(b"good")))
    return msgspec.structs.replace(honest, inline={**honest.inline, digest(b"good").sha256: b"evil"})


@attack
async def no_digest(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    return worker.lie(Change(worker.below(b"made"), Attr(0o100644, 5, 10**18)))


# -- paths ------------------------------------------------------------------------------------------------------------


def made_at(path: bytes, attr: Attr | None = None, link_to: bytes | None = None) -> Answer:
    """Return an answer that makes a file there. `ROOT` stands for the top of the tree."""

    async def answer(worker: HostileWorker, connection: Connection, run: Run) -> Message:
        there = path.replace(b"ROOT", worker.root)
        link = link_to.replace(b"ROOT", worker.root) if link_to is not None else None
        return worker.lie(Change(there, attr or plain(SCRIPT), link), contents=[SCRIPT])

    return answer


PATHS = {
    "dots": made_at(b"ROOT/../outside/made"),
    "dots_inside": made_at(b"ROOT/d/../../outside/made"),
    "slash_in_front": made_at(b"/ROOT/made"),
    "two_slashes": made_at(b"ROOT//made"),
    "one_dot": made_at(b"ROOT/./made"),
    "nul": made_at(b"ROOT/made\0.c"),
    "nothing": made_at(b""),
    "top": made_at(b"ROOT"),
    "top_gone": made_at(b"ROOT/../project", Attr(stat.S_IFLNK | 0o777, 4, 1, target=b"/etc")),
    "outside": made_at(b"ROOT-outside/made"),
    "of_root": made_at(b"etc/termite-made"),
    "long_name": made_at(b"ROOT/" + b"n" * 300),
    "long_path": made_at(b"ROOT" + b"/made" * 1000),
    "endless_path": made_at(b"ROOT" + b"/a" * 100_000),
    "through_symlink": made_at(b"ROOT/link-out/made"),
    "symlinked_file": made_at(b"ROOT/link-secret", None, b"ROOT/../outside/secret"),
    "link_outside": made_at(b"ROOT/made", plain(SCRIPT), b"ROOT/../outside/secret"),
    "link_by_symlink": made_at(b"ROOT/made", plain(SCRIPT), b"ROOT/link-out/secret"),
    "link_to_etc": made_at(b"ROOT/made", plain(SCRIPT), b"etc/passwd"),
    "socket_of_master": made_at(b"ROOT/.termite-socket"),
    "staging": made_at(b"ROOT/.termite-staging/made"),
}
ANSWERS.update(PATHS)


@attack
async def below_own_symlink(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    link = Change(worker.below(b"d1"), Attr(stat.S_IFLNK | 0o777, 0, 1, target=b"/" + worker.root + b"/../outside"))
    return worker.lie(link, Change(worker.below(b"d1/made"), plain(SCRIPT)), contents=[SCRIPT])


# -- kinds, modes and dates -------------------------------------------------------------------------------------------

ANSWERS |= {
    "setuid": made_at(b"ROOT/made", plain(SCRIPT, 0o104755)),
    "setgid": made_at(b"ROOT/made", plain(SCRIPT, 0o102755)),
    "device": made_at(b"ROOT/made", Attr(stat.S_IFCHR | 0o666, 0, 1)),
    "disk": made_at(b"ROOT/made", Attr(stat.S_IFBLK | 0o666, 0, 1)),
    "no_kind": made_at(b"ROOT/made", Attr(0, 0, 1)),
    "huge_mode": made_at(b"ROOT/made", Attr(1 << 40, 0, 1)),
    "hook": made_at(b"ROOT/.git/hooks/post-commit", plain(SCRIPT, 0o100755)),
    "hook_by_rename": made_at(b"ROOT/.git/hooks", Attr(stat.S_IFLNK | 0o777, 0, 1, target=b"../d")),
    "setting_of_git": made_at(b"ROOT/.git/config"),
    "rules": made_at(b"ROOT/.termite-localrc"),
    "envrc": made_at(b"ROOT/d/.envrc"),
}
for _name, _date_ns in (("year_2400", 13_569_465_600 * 10**9), ("year_1500", -14_831_769_600 * 10**9)):
    ANSWERS[_name] = made_at(b"ROOT/dated", plain(SCRIPT, mtime_ns=_date_ns))
    ACCEPTED.add(_name)
for _name, _date_ns in (("year_9999", 2**80), ("before_all", -(2**70))):
    ANSWERS[_name] = made_at(b"ROOT/made", plain(SCRIPT, mtime_ns=_date_ns))


@harmless
async def fifo_of_many_names(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    fifo = Attr(stat.S_IFIFO | 0o644, 0, 10**18)
    first = worker.below(b"fifos/0")
    names = [Change(worker.below(b"fifos/%d" % number), fifo, first) for number in range(1, FIFO_LINKS)]
    directory = Change(worker.below(b"fifos"), Attr(stat.S_IFDIR | 0o755, 0, 10**18))
    return worker.lie(directory, Change(first, fifo), *names)


# -- sizes ------------------------------------------------------------------------------------------------------------


async def in_parts(connection: Connection, parts: Iterable[Ran], last: Ran) -> Message:
    """Send a reply in parts, of which an honest worker would not send so many."""
    post(connection, *(reply(connection, encode(part), Kind.PART) for part in parts), reply(connection, encode(last)))
    return await trio.sleep_forever()


@attack
async def too_many_changes(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    names = [worker.below(b"made%d" % number) for number in range(MAX_CHANGES + 1)]
    parts = (ran([Change(name, None) for name in names[at : at + PART]]) for at in range(0, len(names), PART))
    return await in_parts(connection, parts, worker.lie())


@attack
async def too_many_contents(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    numbers = range(MAX_CHANGES + 1)
    parts = (
        msgspec.structs.replace(ran(), inline={number.to_bytes(32, "big"): b"" for number in numbers[at : at + PART]})
        for at in range(0, len(numbers), PART)
    )
    return await in_parts(connection, parts, worker.lie())


@attack
async def too_many_dropped(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    return worker.lie(dropped=[b"usr/%d" % number for number in range(MAX_DROPPED + 1)])


@attack
async def endless_parts(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    part = ran([Change(worker.below(b"made%d" % number), None) for number in range(PART)])
    return await in_parts(connection, [part] * 600, worker.lie())


# -- frames and messages ----------------------------------------------------------------------------------------------


def sent(*frames: bytes) -> Answer:
    """Return an answer that posts these frames, and then does nothing."""

    async def answer(worker: HostileWorker, connection: Connection, run: Run) -> Message:
        post(connection, *frames)
        return await trio.sleep_forever()

    return answer


def replied(payload: bytes) -> Answer:
    async def answer(worker: HostileWorker, connection: Connection, run: Run) -> Message:
        post(connection, reply(connection, payload))
        return await trio.sleep_forever()

    return answer


ANSWERS |= {
    "unasked_reply": sent(encode_frame(Kind.REPLY, 9999, encode(Done()))),
    "unasked_chunk": sent(encode_frame(Kind.CHUNK, 9999, b"1x")),
    "unasked_credit": sent(encode_frame(Kind.CREDIT, 2, (2**32 - 1).to_bytes(4, "big"))),
    "odd_stream": sent(encode_frame(Kind.REQUEST, 9999, encode(SetSlots(1)))),
    "odd_kind": sent(b"\0\0\0\x09\x63\0\0\0\1abcd"),
    "huge_frame": sent(b"\xff\xff\xff\xff\x02\0\0\0\1abcd"),
    "garbage": sent(random.Random(f"{SEED} garbage").randbytes(5000)),
    "zeros": sent(bytes(5000)),
    "nested": replied(b"\x91" * 200_000),
    "huge_counts": replied(b"\xdd\xff\xff\xff\xff"),
    "no_message": replied(b"\xc0"),
}


@attack
async def other_message(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    return Done()


@attack
async def cut_reply(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    whole = reply(connection, encode(worker.lie()))
    post(connection, whole[: len(whole) // 2])
    await connection._outbox.wait_until_written()
    connection._lose("as the attack wants it")
    return await trio.sleep_forever()


@attack
async def second_reply(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    """Answer twice at once, the first time with nothing of use."""
    post(connection, reply(connection, encode(Done())), reply(connection, encode(worker.lie())))
    return await trio.sleep_forever()


@attack
async def escapes(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    raise UserError("\x1b[2J\x1b[31mforged\ntermite: forged line")


@attack
async def dropped_escapes(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    return worker.lie(dropped=[b"usr/\x1b]0;PWNED\x07\x1b[31mred\nforged line"])


# -- requests of a worker ---------------------------------------------------------------------------------------------


@attack
async def curious(worker: HostileWorker, connection: Connection, run: Run) -> Message:
    """Ask for what a worker may not read, and then break the protocol."""
    root = worker.root
    secret = root + b"/../outside/secret"
    links = [root + b"/link-secret", root + b"/link-out/secret", root + b"/secret.txt", root + b"/.termite-socket"]
    paths = [secret, b"/" + root + b"/f", b"etc/shadow", b"etc//shadow", b"proc/self/environ", b"root/.bashrc", *links]
    for path in paths:
        for size, mtime_ns in {(len(b"PRIVATE"), 0), _size_and_date(path)}:
            worker.learnt.append(await _asked(connection, GetFile(path, size, mtime_ns)))
    for path in (root + b"/../outside", root + b"/link-out", b"root", b"etc/ssl/private", b"..", b"/", b"d/" * 9000):
        worker.learnt.append(await _asked(connection, GetDirectory(path)))
    for request in (ReadStdin(run.job + 1, 10), ReadStdin(2**62, 2**62), SetSlots(10**6)):
        worker.learnt.append(await _asked(connection, request))
    worker.learnt.append(await _asked(connection, Register(PROTOCOL, "x", ":1", 1, 0, 0.0, 0)))
    return await trio.sleep_forever()


def _size_and_date(path: bytes) -> tuple[int, int]:
    with suppress(OSError):
        status = os.lstat(b"/" + path)
        return status.st_size, status.st_mtime_ns
    return 0, 0


async def _asked(connection: Connection, request: Message) -> object:
    taken: list[bytes] = []

    async def take(chunk: bytes) -> None:
        taken.append(chunk)

    try:
        return await connection.request(request, take, timeout_s=PATIENCE_S), taken
    except TermiteError as error:
        return error


# -- random answers ---------------------------------------------------------------------------------------------------


def random_result(number: int) -> Answer:
    async def answer(worker: HostileWorker, connection: Connection, run: Run) -> Message:
        chance = random.Random(f"{SEED} result {number}")
        contents: dict[bytes, bytes] = {}
        changes = [random_change(chance, worker.root, contents) for _ in range(chance.randrange(1, 5))]
        return worker.lie(*changes, contents=list(contents.values()))

    return answer


def random_frames(number: int) -> Answer:
    """Return an answer that is an honest one in which some bytes are others."""

    async def answer(worker: HostileWorker, connection: Connection, run: Run) -> Message:
        chance = random.Random(f"{SEED} frames {number}")
        frames = bytearray(reply(connection, encode(worker.lie(Change(worker.below(b"a"), None)))))
        for _ in range(chance.choice([1, 1, 1, 2, 5])):
            frames[chance.randrange(len(frames))] = chance.randrange(256)
        post(connection, bytes(frames[: chance.choice([len(frames), chance.randrange(len(frames))])]))
        await connection._outbox.wait_until_written()
        await trio.sleep(0.05)  # so that the master may answer, or ask for more
        connection._lose("as the attack wants it")
        return await trio.sleep_forever()

    return answer


RANDOM = {f"random_result_{number}": random_result(number) for number in range(ROUNDS)}
RANDOM |= {f"random_frames_{number}": random_frames(number) for number in range(ROUNDS)}
ANSWERS |= RANDOM
ACCEPTED |= RANDOM.keys()


# -- the tests --------------------------------------------------------------------------------------------------------


@dataclass
class Attacked:
    """A master whose only worker is hostile."""

    whole: Cluster
    worker: HostileWorker
    outside: Path
    before: dict[str, tuple[int, int, bytes]]
    memory_bytes: int

    def run(self, name: str) -> bytes:
        """Run one command, which writes a file. Return the content of the file."""
        tree = self.whole.tree
        out = f"out-{name}"
        done = tree.termite("sh", "-c", f": {name}; echo true >{out}", timeout_s=PATIENCE_S)
        assert self.worker.asked[name], "the attack has taken place"
        assert (done.code, done.stdout) == (0, b""), done
        assert b"\x1b" not in done.stderr, done
        assert all(line.startswith(b"termite: ") for line in done.stderr.splitlines()), done
        return (tree.path / out).read_bytes()

    def harm(self) -> list[object]:
        """Return what is wrong on the user's disk, and with the master."""
        top = self.whole.tree.path
        found: list[object] = []
        if listed(self.outside) != self.before:
            found.append(listed(self.outside))
        for path in [path for path in top.rglob("*") if not path.is_relative_to(top / "fifos")]:
            mode = path.lstat().st_mode
            if mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISDIR(mode):
                found.append(path)
            if b"made" in path.name.encode() or path.name in (".termite-localrc", ".envrc", "post-commit"):
                found.append(path)
            if path.parent == top / ".termite-staging" and not path.name.startswith("plan-"):
                found += [path] if path.stat().st_size > 1 << 20 else []
        if list((top / ".git").glob("hooks/*")) or _config(top) not in (b"[core]\n", None):
            found.append("of git")
        if (code := self.whole.master.process.poll()) is not None:
            found.append(f"the master has ended with {code}")
        elif (more := peak_bytes(self.whole.master.process.pid) - self.memory_bytes) > MORE_BYTES:
            found.append(f"the master has taken {more >> 20} MiB")
        return found


def _config(top: Path) -> bytes | None:
    """Return the content of a file that a result may remove, but not change."""
    with suppress(FileNotFoundError):
        return (top / ".git/config").read_bytes()
    return None


@pytest.fixture(scope="module", params=USERS)
def attacked(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Attacked]:
    with make_place(request.param) as where:
        tree = new_tree(where)
        outside = where.base / "outside"
        outside.mkdir()
        (outside / "secret").write_text("PRIVATE")
        (outside / "secret").chmod(0o600)
        (tree.path / "link-out").symlink_to(outside)
        (tree.path / "link-secret").symlink_to(outside / "secret")
        tree.write(".git/config", "[core]\n")
        tree.write("d/f", "f")
        tree.mkdir(".git/hooks")
        for path in (outside, outside / "secret"):
            tree.own(path)
        with cluster(tree, []) as whole:
            worker = HostileWorker(ANSWERS, BLOBS)
            with hostile_worker(worker, whole.address, whole.secret.read_bytes().rstrip()):
                memory = peak_bytes(whole.master.process.pid)
                yield Attacked(whole, worker, outside, listed(outside), memory)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_hostile_answer_harms_nobody(attacked: Attacked, name: str) -> None:
    content = attacked.run(name)
    expected = (TRUE, FALSE) if name in ACCEPTED else (TRUE,)
    harm = attacked.harm()
    assert verdict(content not in expected or bool(harm), f"the answer {name}") == "HELD", (content, harm)
    if name == "endless":
        assert 0 < attacked.worker.sent_bytes["endless"] < ENOUGH, "no more than the windows of some connections"
    if name == "curious":
        learnt = [repr(answer) for answer in attacked.worker.learnt]
        assert len(learnt) > 20 and not [answer for answer in learnt if "PRIVATE" in answer or "root:" in answer]
