"""Run a daemon with other system calls: the N-th one ends the process, or fails.

usage: faulty_calls.py CONTROL ROLE [ARGUMENT...]

ROLE is master, coordinator, worker or mirror, and the arguments are those of that program. The
mirrors of such a worker are started through this program as well. This file is copied to where the
users of mirrors can read it, so it imports termite only.

The file CONTROL/ROLE gives an order, and without it nothing happens:

    SERIAL WHICH N WHAT OFTEN

WHICH is the beginning of the names of the calls that count, such as `wire.write` or `disk.`, or
several of them with commas. Calls are counted from the moment at which the order is there. WHAT
happens to the N-th one and to the OFTEN - 1 calls behind it:

* `kill` and `stop` end or stop the process;
* `short` transfers only the first byte, and `eof` looks as if the other side had closed;
* the name of an error is that of the call;
* `count` changes nothing.

The N-th call makes the file CONTROL/reached-SERIAL. If OFTEN is 1, only the process that makes the
file is hit, of several ones with the same role. With `count`, the file gets a line with the name of
each call.
"""

import errno
import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import trio

SHELLS = {
    "disk": "termite.engine.tree.disk_calls",
    "looks": "termite.engine.look_calls",
    "wire": "termite.engine.wire.wire_calls",
    "launchers": "termite.engine.launch.launcher_calls",
    "worker": "termite.engine.worker.worker_calls",
    "results": "termite.engine.recall.result_calls",
    "store": "termite.engine.store.store_calls",
    "mirror": "termite.fuse.mirror_calls",
}
SHELLS_OF = {
    "master": ("disk", "looks", "wire", "launchers", "results", "store"),
    "coordinator": ("wire",),
    "worker": ("wire", "worker"),
    "mirror": ("wire", "store", "mirror"),
}
# The argument that says how much is transferred: a number of bytes, or the bytes themselves.
SIZED = {"read": 1, "pread": 1, "recv": 1, "copy_file_range": 2}
SENT = {"write": 1, "send": 1}


class Faults:
    """The order of a test, and the calls since it was given."""

    def __init__(self, control: Path, role: str) -> None:
        self._control = control
        self._order_file = str(control / role)
        self._order = ""
        self._count = 0

    def come(self, name: str) -> str:
        """Count one call. Return "short", "eof" or "" for what happens to it.

        End the process or raise OSError if it is the turn of the call.
        """
        what = self._due(name)
        if what == "kill":
            os._exit(128 + signal.SIGKILL)  # a mirror is pid 1 in its namespace, and would survive its own SIGKILL
        elif what == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif what.isupper():
            raise OSError(getattr(errno, what), os.strerror(getattr(errno, what)))
        return what

    def _due(self, name: str) -> str:
        try:
            fd = os.open(self._order_file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return ""
        order = os.read(fd, 200).decode()
        os.close(fd)
        words = order.split()
        if len(words) != 5 or not name.startswith(tuple(words[1].split(","))):
            return ""
        if order != self._order:
            self._order, self._count = order, 0
        self._count += 1
        serial, _, first, what, often = words
        if not int(first) <= self._count < int(first) + int(often):
            return ""
        reached = self._control / f"reached-{serial}"
        if what == "count":
            _write(reached, os.O_APPEND, f"{name}\n".encode())
            return ""
        with suppress(FileExistsError):
            _write(reached, os.O_EXCL, name.encode())
            return what
        return what if int(often) > 1 else ""

    def wrap(self, shell: str, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that counts, and then does what `call` does."""
        if name == "open_tcp_listeners":
            return self._wrap_listeners(shell, call)

        def counted(*args: Any, **options: Any) -> Any:
            try:
                what = self.come(f"{shell}.{name}")
            except OSError:
                if name == "close":  # the kernel frees the descriptor also when it reports an error
                    call(*args)
                raise
            if what == "eof":
                return b"" if name != "readv" else 0
            return call(*(shortened(name, args) if what == "short" else args), **options)

        return counted

    def _wrap_listeners(self, shell: str, call: Callable[..., Any]) -> Callable[..., Any]:
        async def listen(*args: Any, **options: Any) -> Any:
            self.come(f"{shell}.open_tcp_listeners")
            listeners = await call(*args, **options)
            for listener in listeners:
                listener.socket = Listening(listener.socket, functools.partial(self.come, f"{shell}.accept"))
            return listeners

        return listen


class Listening:
    """A listening socket of trio whose `accept` counts when a connection has come."""

    def __init__(self, real: Any, come: Callable[[], str]) -> None:
        self._real = real
        self._come = come

    async def accept(self) -> Any:
        await trio.lowlevel.wait_readable(self._real)
        self._come()
        return await self._real.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _write(path: Path, flag: int, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flag, 0o666)
    os.write(fd, content)
    os.close(fd)


def shortened(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments with which a call transfers one byte only."""
    words = list(args)
    if name in SIZED:
        words[SIZED[name]] = 1
    elif name in SENT:
        words[SENT[name]] = bytes(memoryview(words[SENT[name]])[:1])
    elif name == "readv":
        words[1] = [memoryview(words[1][0])[:1]]
    return tuple(words)


def replace(module: ModuleType, shell: str, faults: Faults) -> None:
    """Put counting functions in the place of the calls of a module."""
    names = [name for name, call in vars(module).items() if not isinstance(call, ModuleType)]
    for name in [name for name in names if not name.startswith("_")]:
        setattr(module, name, faults.wrap(shell, name, getattr(module, name)))


def main() -> int:
    """Run the daemon that the arguments name."""
    control, role = Path(sys.argv.pop(1)), sys.argv.pop(1)
    faults = Faults(control, role)
    for shell in SHELLS_OF[role]:
        replace(importlib.import_module(SHELLS[shell]), shell, faults)
    if role == "mirror":
        from termite.fuse.mirror import main as mirror

        mirror()
        return 0
    if role == "worker":
        from termite.cli import daemons
        from termite.engine.worker.worker_daemon import WorkerConfig

        program = (sys.executable, "-P", __file__, str(control), "mirror")
        setattr(daemons, "WorkerConfig", functools.partial(WorkerConfig, program=program))  # noqa: B010
    from termite import cli

    return int(getattr(cli, f"{role}_command")())


if __name__ == "__main__":
    raise SystemExit(main())
