"""Run termite-master with other system calls: the N-th one ends the process, or fails.

usage: faulty_master.py CONTROL [ARGUMENT...], with the arguments of termite-master. Nothing happens
before the file CONTROL/order exists. It says `N kill`, `N stop` or `N ERRNO HOW_OFTEN`. Calls are
counted from then on. CONTROL/reached is made when the N-th one comes.
"""

import errno
import os
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from termite.engine import tree
from termite.engine.tree import disk_calls

NAMES = [name for name in vars(disk_calls) if not name.startswith("_")]


class Faults:
    """The order of a test, and the calls since it was given."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._order = ""
        self._count = 0

    def come(self, name: str) -> None:
        """Count one call. End the process or raise OSError if it is its turn."""
        try:
            order = (self._control / "order").read_text()
        except FileNotFoundError:
            return
        if order != self._order:
            self._order, self._count = order, 0
        self._count += 1
        number, what, *often = order.split()
        first = int(number)
        if not first <= self._count < first + int(often[0] if often else 1):
            return
        (self._control / "reached").write_text(name)
        if what in ("kill", "stop"):
            os.kill(os.getpid(), signal.SIGKILL if what == "kill" else signal.SIGSTOP)
            return
        raise OSError(getattr(errno, what), os.strerror(getattr(errno, what)))

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            self.come(name)
            return call(*args, **options)

        return counted


def main() -> int:
    faults = Faults(Path(sys.argv.pop(1)))
    replaced = types.ModuleType(disk_calls.__name__)
    for name in NAMES:
        setattr(replaced, name, faults.wrap(name, getattr(disk_calls, name)))
    sys.modules[disk_calls.__name__] = replaced
    setattr(tree, "disk_calls", replaced)  # noqa: B010
    from termite.engine.launch import connection

    # Only a kill: a launcher that cannot be written to is one that has gone.
    counted_os = types.ModuleType("os")
    vars(counted_os).update(vars(os))
    write = faults.wrap("frame", os.write)
    setattr(counted_os, "write", lambda fd, content: (write if is_killer(sys.argv) else os.write)(fd, content))  # noqa: B010
    setattr(connection, "os", counted_os)  # noqa: B010
    from termite.cli import master_command

    return master_command()


def is_killer(words: list[str]) -> bool:
    return os.environ.get("FAULTY_FRAMES") == "1"


if __name__ == "__main__":
    raise SystemExit(main())
