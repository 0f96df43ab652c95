"""A load generator: it stands for a build tool and its launchers, without their processes.

    python -m bench.load TREE RECORDED JOBS AT_ONCE DIRECTORY

The program sends JOBS jobs through a master's socket, AT_ONCE of them at any time. Each job has a
connection of its own and speaks the launcher's protocol (docs/develop/protocol.md, "Launcher").
Therefore the master does the same work as for a real build. The program prints one JSON object:
the seconds that all jobs took, and how many jobs ended in which way.
"""

import json
import os
import selectors
import socket
import sys
import time
from collections import Counter
from pathlib import Path

from bench.record import read_recorded
from termite.engine.launch.vantage import own_vantage
from termite.engine.wire.protocol import launcher_frames
from termite.engine.wire.protocol.fields import pack_fields

FILES_A_DIRECTORY = 100
READ_BYTES = 64 * 1024
STALLED_S = 60.0
# Command line and environment have a usual size, because the master matches and sends them.
_FLAGS = [f"-DNAME_{number}=1" for number in range(12)] + [f"-I/usr/include/part-{number}" for number in range(12)]
_VARIABLES = {f"VARIABLE_{number}": "x" * 40 for number in range(20)} | {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
_ENVIRONMENT = pack_fields(("env", f"{name}={text}".encode()) for name, text in _VARIABLES.items())


class Stalled(Exception):
    """The master sent nothing for STALLED_S seconds."""


class Load:
    """A load is `jobs` jobs whose results go below `directory` in `tree`.

    `commands` is the number of recorded commands; the jobs repeat them in order.
    """

    def __init__(self, tree: Path, commands: int, jobs: int, directory: str) -> None:
        self.ends: Counter[str] = Counter()
        self._tree = tree
        self._commands = commands
        self._jobs = jobs
        self._directory = directory
        self._next = 0
        self._selector = selectors.DefaultSelector()
        self._common = _common(tree)

    def run(self, at_once: int) -> float:
        """Run all jobs, `at_once` at a time; return the seconds. Raise Stalled without answers."""
        started = time.monotonic()
        for _ in range(min(at_once, self._jobs)):
            self._launch()
        while self._selector.get_map():
            events = self._selector.select(STALLED_S)
            if not events:
                raise Stalled(f"nothing came back for {STALLED_S:.0f} s; so far: {dict(self.ends)}")
            for key, _ in events:
                self._receive(key)
        return time.monotonic() - started

    def _launch(self) -> None:
        if self._next == self._jobs:
            return
        number, self._next = self._next, self._next + 1
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(self._tree / ".termite-socket"))
        connection.sendall(
            launcher_frames.frame(launcher_frames.INVOKE, self._common + self._words(number) + _ENVIRONMENT)
        )
        self._selector.register(connection, selectors.EVENT_READ, launcher_frames.FrameBuffer())

    def _words(self, number: int) -> bytes:
        path = output_path(self._tree, self._directory, number)
        words = ["job", str(number % self._commands), path, *_FLAGS]
        return pack_fields(("arg", os.fsencode(word)) for word in words)

    def _receive(self, key: selectors.SelectorKey) -> None:
        connection = key.fileobj
        assert isinstance(connection, socket.socket)
        received = connection.recv(READ_BYTES)
        for kind, payload in key.data.feed(received):
            if kind == launcher_frames.STDOUT:
                continue
            self._end(connection, f"{kind.decode()} {payload.decode(errors='replace')}".rstrip("\0"))
            return
        if not received:
            self._end(connection, "hung up")

    def _end(self, connection: socket.socket, how: str) -> None:
        self.ends[how] += 1
        self._selector.unregister(connection)
        connection.close()
        self._launch()


def output_path(tree: Path, directory: str, number: int) -> str:
    """Return the absolute path of a job's first result, without its leading slash."""
    return f"{tree}/{directory}/{number // FILES_A_DIRECTORY}/{number}.o".lstrip("/")


def make_directories(tree: Path, directory: str, jobs: int) -> None:
    """Make the directories of the results that `output_path` names for `jobs` jobs."""
    for number in range(0, jobs, FILES_A_DIRECTORY):
        (Path("/") / output_path(tree, directory, number)).parent.mkdir(parents=True, exist_ok=True)


def _common(tree: Path) -> bytes:
    said = [
        ("v", launcher_frames.VERSION.encode()),
        ("how", b"preload"),
        ("tool", b"ninja"),
        ("exe", b"job"),
        ("search", b"1"),
    ]
    said += [("cwd", os.fsencode(tree)), ("umask", b"022"), ("stdin", b"null"), ("merge", b"1")]
    vantage = own_vantage(str(tree))
    said += [(name, getattr(vantage, name).encode()) for name in vantage.__slots__]
    return pack_fields(said)


def main() -> None:
    """Run the load of the command line and print its result."""
    tree, recorded, jobs, at_once, directory = sys.argv[1:]
    load = Load(Path(tree), len(read_recorded(recorded)), int(jobs), directory)
    wall_s = load.run(int(at_once))
    print(json.dumps({"wall_s": wall_s, "ends": load.ends}))


if __name__ == "__main__":
    main()
