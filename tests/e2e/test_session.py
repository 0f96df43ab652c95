"""The loop that answers the kernel, on a real mount."""

import subprocess
import sys
from pathlib import Path

# Its first request is taken back by the kernel just after the loop was told that there is one.
PROGRAM = """
import os, subprocess, sys, tempfile
import pyfuse3, trio
from termite.fuse.kernel_requests import session

class Nothing(pyfuse3.Operations):
    async def lookup(self, parent, name, ctx=None):
        raise pyfuse3.FUSEError(2)

def look(place):
    return subprocess.Popen(["stat", f"{place}/name"], stderr=subprocess.DEVNULL)

async def main():
    place = tempfile.mkdtemp()
    session.mount(Nothing(), place)
    victims, wait_readable = [], trio.lowlevel.wait_readable

    async def wait_and_kill(fd):
        await wait_readable(fd)
        if victims:
            victim = victims.pop()
            victim.kill()
            victim.wait()
            print("taken back", flush=True)

    trio.lowlevel.wait_readable = wait_and_kill
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.serve)
        for _ in range(int(sys.argv[1])):
            victims.append(look(place))
            while victims:
                await trio.sleep(0.01)
        other = look(place)
        while other.poll() is None:
            await trio.sleep(0.01)
        print("answered", other.returncode, flush=True)
        nursery.cancel_scope.cancel()
    pyfuse3.close()
    os.rmdir(place)

trio.run(main)
"""


# Forty requests wait for something else, then one is answered at once. Then the forty end, and
# forty more are answered at once.
WAITING = """
import os, stat, subprocess, tempfile
import pyfuse3, trio
from termite.fuse.kernel_requests import session

FAST = 1000

class Slow(pyfuse3.Operations):
    def __init__(self):
        super().__init__()
        self.waiting, self.is_over = 0, trio.Event()

    async def lookup(self, parent, name, ctx=None):
        return await self.getattr(int(name))

    async def getattr(self, inode, ctx=None):
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = stat.S_IFREG | 0o444 if inode > 1 else stat.S_IFDIR | 0o755
        return entry

    async def open(self, inode, flags, ctx):
        if inode < FAST:
            self.waiting += 1
            await self.is_over.wait()
        raise pyfuse3.FUSEError(2)

async def main():
    place = tempfile.mkdtemp()
    operations = Slow()
    session.mount(operations, place)

    async def look(inode):
        done = await trio.run_process(["cat", f"{place}/{inode}"], check=False, stderr=subprocess.DEVNULL)
        assert done.returncode == 1

    async with trio.open_nursery() as kernel:
        kernel.start_soon(session.serve)
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(look, 2 + number)
            while operations.waiting < 40:
                await trio.sleep(0.01)
            await look(FAST)
            print("answered", flush=True)
            operations.is_over.set()
        for number in range(40):
            await look(FAST + number)
        with trio.move_on_after(10):
            while listeners() > 3:
                await trio.sleep(0.01)
        print("few listeners:", listeners() <= 3, flush=True)
        await trio.run_process(["umount", place])  # and it ends by itself
    pyfuse3.close(unmount=False)
    os.rmdir(place)

def listeners():
    names = [task.name for task in all_tasks(trio.lowlevel.current_root_task())]
    return sum("Leader.run" in name or "_Listeners" in name for name in names)

def all_tasks(task):
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from all_tasks(child)

trio.run(main)
"""


def in_a_namespace(program: str, *args: str) -> tuple[int, str, str]:
    """Run a Python program in a mount namespace of its own, and return how it ended."""
    argv = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-P", "-c", program, *args]
    done = subprocess.run(argv, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_request_that_waits_holds_up_no_other_one_and_who_listened_meanwhile_goes() -> None:
    code, stdout, stderr = in_a_namespace(WAITING)
    assert (code, stdout) == (0, "answered\nfew listeners: True\n"), stderr


def test_a_request_that_the_kernel_takes_back_stops_nothing() -> None:
    code, stdout, stderr = in_a_namespace(PROGRAM, "3")
    assert (code, stdout) == (0, "taken back\n" * 3 + "answered 1\n"), stderr
