"""The conversation with the kernel: pyfuse3's loop, which must not wait for the kernel in a read.

pyfuse3 waits until /dev/fuse is readable, then reads it. When whoever asked is killed between the two, the kernel takes
its request back, and a read that blocks would stop this whole process until some other job asks for something: no
output, no end of a job, no answer to the master. So the read does not block, and the loop goes on when it says EAGAIN.
"""

import os
import stat
from pathlib import Path
from typing import Any

import pyfuse3

MAX_TASKS = 2000  # requests that may wait at once; each waiting one holds a task of pyfuse3's
FUSE_DEVICE = os.makedev(10, 229)  # misc, FUSE_MINOR: Documentation/admin-guide/devices.txt of Linux

# Not public, so not in its stub; its version is pinned, and tests/e2e/test_session.py tells if this is another thing.
_loop = pyfuse3._session_loop  # type: ignore[attr-defined]


def mount(operations: pyfuse3.Operations, mount_point: Path) -> None:
    """May be called once in a process. RuntimeError where the kernel refuses."""
    options = set(pyfuse3.default_options) | {"ro", "fsname=termite", "subtype=termite"}
    options.discard("default_permissions")  # the overlay on top checks, with the job's credentials
    pyfuse3.init(operations, str(mount_point), options)
    for fd in _devices():
        os.set_blocking(fd, False)


async def serve() -> None:
    """Answer the kernel until cancelled, or until the mount is gone."""
    pyfuse3._session_loop = _keep_looping  # type: ignore[attr-defined]
    await pyfuse3.main(min_tasks=2, max_tasks=MAX_TASKS)


async def _keep_looping(nursery: Any, min_tasks: int, max_tasks: int) -> None:
    """One of pyfuse3's tasks, each of which is such a loop: it ends by itself where there are too many."""
    while True:
        try:
            await _loop(nursery, min_tasks, max_tasks)
            return
        except BlockingIOError:
            pass


def _devices() -> list[int]:
    """Our descriptors of /dev/fuse. pyfuse3 does not say which it is."""
    devices = []
    for name in os.listdir("/proc/self/fd"):
        try:
            status = os.fstat(int(name))
        except OSError:  # the one with which this directory was listed
            continue
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == FUSE_DEVICE:
            devices.append(int(name))
    return devices
