"""Read the kernel's requests: pyfuse3's loop, with another way to wait for /dev/fuse.

Each of pyfuse3's tasks waits until the kernel asks something, reads it and answers. Before it
reads, it hands the waiting to another task, in case its own answer has to wait for the network.
Therefore two tasks are woken for each request. Here a task goes on listening, and another one
takes over only if an answer does have to wait.

The read must not block either. If the asking process is killed after the device became readable,
the kernel takes its request back. A blocking read would then stop this whole process until some
other job asks for something: no output, no end of a job, no answer to the master.

An answer that the kernel does not take, because it has no memory, cannot be given again: pyfuse3
has freed the request. The job would wait for ever, and could not even be killed. Then this process
ends at once, and the kernel answers all waiting requests with an error. The worker's lease is lost,
and its jobs are given back.
"""

import errno
import logging
import os
import stat
from pathlib import Path

import pyfuse3
import trio

from termite.engine.loop.leader import Leader

MAX_TASKS = 2000  # requests that may wait at once; each holds a task with a buffer of a megabyte
NEVER = -(2**31)  # pyfuse3 itself starts a task only if there are fewer than so many
FUSE_DEVICE = os.makedev(10, 229)  # misc, FUSE_MINOR: Documentation/admin-guide/devices.txt of Linux

# pyfuse3 does not publish this, so its stub has no type for it. Its version is pinned, and
# tests/e2e/test_session.py fails if another version has something else here.
_loop = pyfuse3._session_loop  # type: ignore[attr-defined]

_PYFUSE3_LOG = logging.getLogger("pyfuse3")
_ERRNO_OF = {os.strerror(number): number for number in errno.errorcode}
# Nobody waits: the asking process was killed, or the mount has ended.
_NOBODY_WAITS = frozenset((errno.ENOENT, errno.ENODEV, errno.EPERM, errno.ECONNABORTED))

log = logging.getLogger(__name__)


class _FailedAnswers(logging.Handler):
    """The end of this process if pyfuse3 logs that the kernel did not take an answer."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        number = _errno_of_answer(text)
        if number is not None and number not in _NOBODY_WAITS:
            log.error("answer-not-taken reason=%s", text)
            os._exit(1)


def _errno_of_answer(text: str) -> int | None:
    """Return the errno of an answer that failed, 0 if it is unknown, or None for another message.

    pyfuse3 says this in words only. tests/e2e/test_failed_answers.py fails if its words change.
    """
    what, _, error = text.rpartition(" failed with ")
    return _ERRNO_OF.get(error, 0) if "fuse_reply" in what else None


def mount(operations: pyfuse3.Operations, mount_point: Path) -> None:
    """Mount the file system; call this once in a process.

    Raise RuntimeError if the kernel refuses; the worker then cannot serve.
    """
    options = set(pyfuse3.default_options) | {"ro", "fsname=termite", "subtype=termite"}
    options.discard("default_permissions")  # the overlay on top checks, with the job's credentials
    pyfuse3.init(operations, str(mount_point), options)
    os.set_blocking(_device(), False)
    _PYFUSE3_LOG.addHandler(_FailedAnswers())


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
        """Run the first task; pyfuse3 starts it, and no other one, because of NEVER."""
        self._leader = Leader(nursery, lambda _: _answer_all(nursery), max_tasks=MAX_TASKS)
        await self._leader.run()

    async def wait(self) -> bool:
        """Wait until the calling task may read the device; return False if the task has to end.

        pyfuse3 calls this in place of its own function.
        """
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
        except BlockingIOError:  # the kernel has taken the request back
            pass


def _device() -> int:
    """Return our descriptor of /dev/fuse, which pyfuse3 does not name."""
    for name in os.listdir("/proc/self/fd"):
        try:
            status = os.fstat(int(name))
        except OSError:  # the descriptor that listed this directory
            continue
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == FUSE_DEVICE:
            return int(name)
    raise RuntimeError("/dev/fuse is not open")
