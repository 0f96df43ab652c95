"""Builds go on below the filter of system calls: sandboxes, 32 bits, debuggers, git."""

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mirror_places import NOBODY, STARTERS, mirror_place
from tests.e2e.mirrors import FakeMaster, Starter, mirror

HELLO = '#include <stdio.h>\nint main(void) { return puts("hello") < 0; }\n'
# Neither a C library nor libgcc: gcc and its binutils make this for 32 bits everywhere.
BARE = r"""
__asm__(".globl _start\n_start: mov $4, %eax\n mov $1, %ebx\n mov $text, %ecx\n mov $6, %edx\n int $0x80\n"
        "mov $1, %eax\n xor %ebx, %ebx\n int $0x80\n .data\ntext: .ascii \"hello\\n\"\n");
"""
SOCKETS = """
import asyncio, multiprocessing, socket
async def main():
    server = await asyncio.start_server(lambda r, w: (w.write(b"hel"), w.close()), "127.0.0.1", 0)
    reader, _ = await asyncio.open_connection(*server.sockets[0].getsockname())
    return await reader.read()
def child(pipe):
    pipe.send(b"lo")
ours, theirs = multiprocessing.Pipe()
process = multiprocessing.Process(target=child, args=(theirs,))
process.start()
first, second = socket.socketpair()
print((asyncio.run(main()) + ours.recv()).decode(), len(socket.if_nameindex()))
process.join()
"""
GIT = """
git init -q repo && cd repo && echo x >f && git add f
git -c user.name=a -c user.email=b@c commit -qm first && git gc -q
git clone -q --no-hardlinks . ../copy && cat ../copy/f
"""
NESTED = """
test $$ = 1 && mount -t tmpfs none /mnt && echo hello >/mnt/f && cat /mnt/f && test $(ls /proc | grep -c "^[1-9]") -lt 9
"""


@pytest.fixture(params=list(STARTERS.values()), ids=list(STARTERS))
def starter(request: pytest.FixtureRequest) -> Starter:
    assert isinstance(request.param, Starter)
    return request.param


@pytest.fixture
def place() -> Iterator[Path]:
    with mirror_place() as path:
        yield path


@pytest.fixture
def master(place: Path, starter: Starter) -> FakeMaster:
    """Return the master of an ordinary user, whose jobs have no privilege.

    Jobs of root keep some, and then cannot make user namespaces.
    """
    master = FakeMaster(place / "project")
    master.uid = master.gid = starter.owner() or NOBODY
    os.chown(master.project, master.uid, master.gid)
    return master


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"this machine has no {program}")


async def said(master: FakeMaster, place: Path, starter: Starter, script: str) -> str:
    env = (b"PATH=/usr/bin:/bin:/usr/sbin", b"LANG=C.UTF-8", b"HOME=" + os.fsencode(master.project))
    async with mirror(master, place, starter):
        return (await master.said("sh", "-ec", script, env=env)).decode()


async def test_a_sandbox_in_the_sandbox(master: FakeMaster, place: Path, starter: Starter) -> None:
    script = f"unshare --user --map-root-user --mount --pid --fork --mount-proc sh -ec '{NESTED}'"
    assert await said(master, place, starter, script) == "hello\n"


async def test_bubblewrap_in_the_sandbox(master: FakeMaster, place: Path, starter: Starter) -> None:
    needs("bwrap")
    script = "bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp sh -c 'echo hello | tee /tmp/f'"
    assert await said(master, place, starter, script) == "hello\n"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64 machine")
async def test_a_program_of_32_bits_without_a_c_library(master: FakeMaster, place: Path, starter: Starter) -> None:
    (master.project / "a.c").write_text(BARE)
    script = "gcc -m32 -nostdlib -static -o a a.c && ./a"
    assert await said(master, place, starter, script) == "hello\n"


@pytest.mark.skipif(not Path("/usr/lib32/crt1.o").exists(), reason="needs libc6-dev-i386")
async def test_a_program_of_32_bits_with_a_c_library(master: FakeMaster, place: Path, starter: Starter) -> None:
    (master.project / "a.c").write_text(HELLO)
    # `gcc -m32` would link parts of its own for 32 bits, too (gcc-multilib), which this program
    # does not use.
    script = "cd /usr/lib32 && gcc -m32 -nostdlib -o $HOME/a crt1.o crti.o $HOME/a.c -L. -lc crtn.o && $HOME/a"
    assert await said(master, place, starter, script) == "hello\n"


async def test_sockets_between_the_processes_of_a_job(master: FakeMaster, place: Path, starter: Starter) -> None:
    (master.project / "sockets.py").write_text(SOCKETS)
    assert await said(master, place, starter, "/usr/bin/python3 sockets.py") == "hello 1\n"


async def test_version_control(master: FakeMaster, place: Path, starter: Starter) -> None:
    needs("git")
    assert await said(master, place, starter, GIT) == "x\n"


async def test_a_debugger(master: FakeMaster, place: Path, starter: Starter) -> None:
    needs("gdb")
    (master.project / "a.c").write_text(HELLO)
    script = "gcc -g -o a a.c && gdb -nx -batch -ex 'break main' -ex run -ex continue ./a 2>&1"
    told = await said(master, place, starter, script)
    assert "Breakpoint 1, main ()" in told
    assert "hello\n" in told
    assert "exited normally" in told
