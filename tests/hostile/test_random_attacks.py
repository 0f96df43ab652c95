"""Attacks with chance in them: a job, a master, a worker and strangers that send and do anything.

HOSTILE_SEED (default: 1) decides everything. `make torture` runs these tests with other seeds.
"""

import os
import random
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from termite.engine.decide.logic.later_code import find_later_code
from termite.engine.errors import TermiteError, first_error
from termite.engine.model import Attr, Change, Digest
from termite.engine.paths import tree_path
from termite.engine.sparse_content import digest_of
from termite.engine.tree.logic.times import Timing
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from tests.e2e.cluster import HOST
from tests.e2e.conftest import MakePlace
from tests.e2e.mirrors import FakeMaster, Starter, mirror
from tests.hostile.attackers import WORKERS, place_of
from tests.hostile.masters import STARTERS, HostileMaster, attacked_place, listed
from tests.hostile.test_strangers import attacked, list_workers, open_lease

SEED = int(os.environ.get("HOSTILE_SEED", "1"))
PATIENCE_S = 60
workers = pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS)

# Call the kernel with random numbers and arguments, in children that an alarm ends.
RANDOM_CALLS = """
import ctypes, os, random, signal, sys
chance, libc = random.Random(int(sys.argv[1])), ctypes.CDLL(None)
room = ctypes.create_string_buffer(4096)
words = [ctypes.create_string_buffer(word) for word in (b"/", b".", b"f", b"/proc/self/mem", b"..", b"/dev/ptmx")]
pointers = [ctypes.addressof(room), *map(ctypes.addressof, words)]
values = [0, 1, 2, 3, 7, 64, 4096, 0x10000000, 2**31 - 1, 2**32 - 1, 2**63 - 1, -1, -100]
made = 0
for _ in range(30):
    choices = [(chance.randrange(0, 470), [chance.choice(values + pointers) for _ in range(6)]) for _ in range(100)]
    child = os.fork()
    if child == 0:
        signal.alarm(1)
        for number, arguments in choices:
            if number not in (34, 37, 130, 35):  # they wait, or change the alarm
                libc.syscall(number, *map(ctypes.c_long, arguments))
        os._exit(0)
    os.waitpid(child, 0)
    made += len(choices)
print(made)
"""

ODD_BYTES = [
    b"",
    b"/",
    b"..",
    b"a/../../../b",
    b"\0",
    b"a\0b=c",
    b"x" * 5000,
    b"\xff\xfe",
    b"/etc/passwd",
    b"a//b",
    b".",
]
ODD_NUMBERS = [-1, 0, 1, 2**15, 2**31, 2**32 - 1, 2**63 - 1, -(2**63), 10**6]
RUN_FIELDS = ["argv", "exe", "env", "cwd", "umask", "timeout_s", "memory_bytes", "limits", "nice", "ignored", "number"]
LEASE_FIELDS = ["slots", "uid", "gid", "writable_root", "number", "hostname", "owner", "temporary", "master"]


def forged_value(chance: random.Random, name: str) -> Any:
    """Return a value that an honest sender would not give the field, though perhaps of its type."""
    if name in ("argv", "env", "temporary"):
        return tuple(chance.choices(ODD_BYTES, k=chance.randrange(5)))
    if name in ("exe", "cwd", "writable_root", "owner"):
        return chance.choice([*ODD_BYTES, chance.randbytes(32)])
    if name in ("hostname", "limits", "master"):
        return chance.choice(["", "a\nb", "\x1b[2J", "x" * 5000, "0:0", "nofile=-1", "../.."])
    return chance.choice(ODD_NUMBERS)


@workers
async def test_random_system_calls_of_a_job_concern_nobody_else(worker: Starter) -> None:
    with place_of(worker) as place:
        before = listed(place / "home")
        master = FakeMaster(place / "project")
        master.uid = master.gid = worker.owner()
        with trio.fail_after(2 * PATIENCE_S):
            async with mirror(master, place, worker):
                for job in range(2):
                    with suppress(TermiteError):  # a limit may end it, or its result may be refused
                        await master.run("/usr/bin/python3", "-c", RANDOM_CALLS, f"{SEED + job}", timeout_s=60.0)
                    assert await master.said("/bin/echo", "served") == b"served\n"
        assert listed(place / "home") == before
    print("HELD")


@pytest.mark.parametrize("starter", STARTERS)
async def test_random_fields_of_a_master_reach_nothing_of_the_worker(starter: Starter) -> None:
    chance = random.Random(f"{SEED} master")
    with attacked_place(starter) as base:
        before = listed(base / "home")
        with trio.fail_after(2 * PATIENCE_S):
            for _ in range(6):
                names = chance.sample(LEASE_FIELDS, chance.randrange(2))
                master = HostileMaster(base / "project", **{name: forged_value(chance, name) for name in names})
                with suppress(TermiteError), first_error():  # its connection ends, or the answer is an error
                    async with mirror(master, base / "place", starter):
                        for _ in range(10):
                            fields = {name: forged_value(chance, name) for name in chance.sample(RUN_FIELDS, 2)}
                            await master.run("/bin/true", **fields)
            honest = FakeMaster(base / "project")
            async with mirror(honest, base / "place", starter):
                assert await honest.said("/bin/echo", "served") == b"served\n"
        assert listed(base / "home") == before
    print("HELD")


def random_change(chance: random.Random, root: bytes, contents: dict[bytes, bytes]) -> Change:
    names = [b"a", b"b", b"d", b"..", b".", b"", b".git", b"hooks", b"x" * 300, b"link", b"\xff", b".termite-localrc"]
    top = chance.choice([root, root, root, root + b"/..", b"etc", b"/" + root, b""])
    if chance.random() < 0.5:  # as an honest job's
        top, names = root, [b"a", b"b", b"d", b".git", b"hooks", b"link"]
    path = b"/".join([top, *chance.choices(names, k=chance.randrange(4))])
    content = chance.randbytes(chance.randrange(20))
    kind = chance.choice([stat.S_IFREG, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, 0])
    mode = kind | chance.choice([0o644, 0o755, 0o4755, 0o2755, 0o1777, 0, 0o7777, 0o400])
    digest = digest_of(content) if stat.S_ISREG(mode) else None
    if chance.random() < 0.1:
        digest = Digest(chance.randbytes(32), len(content))
    contents[digest_of(content).sha256] = content
    target = chance.choice([b"/etc", b"..", b"../../outside", b"a", b"x" * 5000]) if stat.S_ISLNK(mode) else b""
    attr = Attr(mode, len(content), chance.choice([0, 1, 10**18, 2**63 - 1, -(10**18)]), digest, target)
    link = chance.choice([None, None, None, root + b"/a", root + b"/../outside/secret", b"etc/passwd"])
    return Change(path, None if chance.random() < 0.2 else attr, link)


async def test_random_results_of_a_worker_change_nothing_outside_the_tree(tmp_path: Path) -> None:
    chance = random.Random(f"{SEED} worker")
    root, outside = tmp_path / "root", tmp_path / "outside"
    for directory in (root, outside):
        directory.mkdir()
    (outside / "secret").write_bytes(b"PRIVATE")
    before = listed(outside)
    home = MasterTree(TreeConfig(tree_path(root)))
    published = 0
    try:
        await home.directory(tree_path(root))
        for _ in range(300):
            contents: dict[bytes, bytes] = {}
            changes = [random_change(chance, tree_path(root), contents) for _ in range(chance.choice([1, 1, 2, 3]))]
            if find_later_code(changes, tree_path(root)):
                continue  # run_job refuses the result as a whole
            with suppress(TermiteError):
                await home.publish(changes, contents, Timing(home.now_ns(), 1, 2, 0, home.drain()))
                published += 1
            assert listed(outside) == before
            assert sorted(os.listdir(tmp_path)) == ["outside", "root"]
            for path in root.rglob("*"):
                assert path.is_dir() or not path.lstat().st_mode & (stat.S_ISUID | stat.S_ISGID), path
                assert not path.match(".git/hooks/*"), "nothing runs code later"
                assert path.name != ".termite-localrc"
        (root / "last").touch()
        home.drain()
    finally:
        home.close()
    assert published > 0, "some are harmless"
    print("HELD")


@pytest.mark.parametrize(("name", "ask"), [("termite-coordinator", list_workers), ("termite-worker", open_lease)])
async def test_random_bytes_of_strangers_end_no_daemon(make_place: MakePlace, name: str, ask: Any) -> None:
    chance = random.Random(f"{SEED} {name}")
    with make_place("ordinary") as where, attacked(where, name) as (running, port, secret):
        for _ in range(40):
            said = chance.randbytes(chance.randrange(1, 600))
            if chance.random() < 0.7:  # the head of a record of TLS, with a right or wrong length
                length = chance.choice([len(said), 0, 1, 16384, 65535])
                said = (
                    struct.pack(">BHH", chance.choice([20, 21, 22, 23]), chance.choice([0x301, 0x303, 0]), length)
                    + said
                )
            with suppress(OSError, trio.BrokenResourceError):
                stream = await trio.open_tcp_stream(HOST, port)
                async with stream:
                    await stream.send_all(said)
                    if chance.random() < 0.5:
                        await stream.send_eof()
        with trio.fail_after(PATIENCE_S):
            assert await ask(port, secret) < PATIENCE_S
        assert running.process.poll() is None
    print("HELD")
