"""The conversation with the kernel: pyfuse3's loop, with another way to wait for /dev/fuse.

Each of pyfuse3's tasks waits until the kernel asks something, reads it and answers. It hands the waiting on to another
task before it reads, in case that its own answer has to wait for the network: two tasks are woken for each request.
Here a task goes on listening, and another one takes over only where an answer does have to wait.

Nor must the read block. When whoever asked is killed after the device became readable, the kernel takes its request
back, and such a read would stop this whole process until some other job asks for something: no output, no end of a job,
no answer to the master.
"""

import os
import stat
from pathlib import Path

import pyfuse3
import trio

from termite.engine.loop.leader import Leader

MAX_TASKS = 2000  # requests that may wait at once; each waiting one holds a task, with a buffer of a megabyte
NEVER = -(2**31)  # as many tasks may there be for pyfuse3 to start one itself
FUSE_DEVICE = os.makedev(10, 229)  # misc, FUSE_MINOR: Documentation/admin-guide/devices.txt of Linux

# Not public, so not in its stub; its version is pinned, and tests/e2e/test_session.py tells if this is another thing.
_loop = pyfuse3._session_loop  # type: ignore[attr-defined]


def mount(operations: pyfuse3.Operations, mount_point: Path) -> None:
    """May be called once in a process. RuntimeError where the kernel refuses."""
    options = set(pyfuse3.default_options) | {"ro", "fsname=termite", "subtype=termite"}
    options.discard("default_permissions")  # the overlay on top checks, with the job's credentials
    pyfuse3.init(operations, str(mount_point), options)
    os.set_blocking(_device(), False)


async def serve() -> None:
    """Answer the kernel until cancelled, or until the mount is gone."""
    listeners = _Listeners(_device())
    pyfuse3._session_loop = listeners.run  # type: ignore[attr-defined]
    pyfuse3._wait_fuse_readable = listeners.wait  # type: ignore[attr-defined]
    await pyfuse3.main()


class _Listeners:
    """The tasks that answer the kernel."""

    def __init__(self, device: int) -> None:
        self._device = device

    async def run(self, nursery: trio.Nursery, *_: int) -> None:
        """The first of them. pyfuse3 starts it, and starts no other one, as there are never few enough of them."""
        self._leader = Leader(nursery, lambda _: _answer_all(nursery), max_tasks=MAX_TASKS)
        await self._leader.run()

    async def wait(self) -> bool:
        """In pyfuse3's stead: until the device can be read by the task that calls this. False: it is to end."""
        if not await self._leader.wait_turn():
            return False
        try:
            await self._leader.listen(trio.lowlevel.wait_readable, self._device)
        except trio.ClosedResourceError:
            return False
        return True


async def _answer_all(nursery: trio.Nursery) -> None:
    while True:
        try:
            await _loop(nursery, 0, NEVER)
            return
        except BlockingIOError:  # what was to be read was taken back
            pass


def _device() -> int:
    """Our descriptor of /dev/fuse. pyfuse3 does not say which it is."""
    for name in os.listdir("/proc/self/fd"):
        try:
            status = os.fstat(int(name))
        except OSError:  # the one with which this directory was listed
            continue
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == FUSE_DEVICE:
            return int(name)
    raise RuntimeError("/dev/fuse is not open")
