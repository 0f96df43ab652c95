"""The loop that answers the kernel, on a real mount."""

import subprocess
import sys
from pathlib import Path

# Its first request is taken back by the kernel just after the loop was told that there is one.
PROGRAM = """
import os, subprocess, sys, tempfile
import pyfuse3, trio
from termite.fuse import session

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


def test_a_request_that_the_kernel_takes_back_stops_nothing() -> None:
    """In a mount namespace of its own, so nothing is left of it."""
    argv = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-P", "-c", PROGRAM, "3"]
    done = subprocess.run(argv, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "taken back\n" * 3 + "answered 1\n"), done.stderr
