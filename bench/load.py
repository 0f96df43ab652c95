"""A build tool and its launchers, without their processes: so many jobs through a master's socket, so many at once.

    python -m bench.load TREE RECORDED JOBS AT_ONCE DIRECTORY

It speaks the launcher's own protocol (docs/protocol.md, "Launcher"), one connection for each job, so the master does
all that it does for a real build. It prints one JSON object: seconds, and how the jobs ended.
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
from termite.engine.wire.protocol import records

FILES_A_DIRECTORY = 100
READ_BYTES = 64 * 1024
STALLED_S = 60.0
# Of a usual size; the words of a compilation are what rules are searched in and what travels.
_FLAGS = [f"-DNAME_{number}=1" for number in range(12)] + [f"-I/usr/include/part-{number}" for number in range(12)]
_VARIABLES = {f"VARIABLE_{number}": "x" * 40 for number in range(20)} | {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
_ENVIRONMENT = records.pack_records(("env", f"{name}={text}".encode()) for name, text in _VARIABLES.items())


class Stalled(Exception):
    """Nothing came back for long."""


class Load:
    """`jobs` of them, `at_once`, results below `directory` in `tree`."""

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
        """All of them; seconds."""
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
        connection.sendall(records.frame(records.INVOKE, self._common + self._words(number) + _ENVIRONMENT))
        self._selector.register(connection, selectors.EVENT_READ, records.Frames())

    def _words(self, number: int) -> bytes:
        path = output_path(self._tree, self._directory, number)
        words = ["job", str(number % self._commands), path, *_FLAGS]
        return records.pack_records(("arg", os.fsencode(word)) for word in words)

    def _receive(self, key: selectors.SelectorKey) -> None:
        connection = key.fileobj
        assert isinstance(connection, socket.socket)
        received = connection.recv(READ_BYTES)
        for kind, payload in key.data.feed(received):
            if kind == records.STDOUT:
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
    """Below the root, without leading slash."""
    return f"{tree}/{directory}/{number // FILES_A_DIRECTORY}/{number}.o".lstrip("/")


def make_directories(tree: Path, directory: str, jobs: int) -> None:
    """Those that `output_path` names for so many jobs."""
    for number in range(0, jobs, FILES_A_DIRECTORY):
        (Path("/") / output_path(tree, directory, number)).parent.mkdir(parents=True, exist_ok=True)


def _common(tree: Path) -> bytes:
    said = [("v", b"2"), ("how", b"preload"), ("tool", b"ninja"), ("exe", b"job"), ("search", b"1")]
    said += [("cwd", os.fsencode(tree)), ("umask", b"022"), ("stdin", b"null"), ("merge", b"1")]
    return records.pack_records(said)


def main() -> None:
    tree, recorded, jobs, at_once, directory = sys.argv[1:]
    load = Load(Path(tree), len(read_recorded(recorded)), int(jobs), directory)
    wall_s = load.run(int(at_once))
    print(json.dumps({"wall_s": wall_s, "ends": load.ends}))


if __name__ == "__main__":
    main()
