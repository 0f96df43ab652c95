"""Run programs on a real terminal, as a person's shell does."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from termite.engine.loop.readiness import wait_until_readable
from tests.e2e.places import Place

LIMIT_S = 60
SIZE = (33, 77)  # rows and columns that no default has


class Terminal:
    """The screen and the keyboard of a program: all that it has written, and a way to type."""

    def __init__(self, leader: int, process: "subprocess.Popen[bytes]") -> None:
        self.leader = leader
        self.process = process
        self.text = b""

    def type(self, keys: bytes) -> None:
        os.write(self.leader, keys)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.leader, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def read_until(self, words: bytes) -> bytes:
        """Wait for `words` behind what was returned before, and return all up to them."""
        while words not in self.text:
            assert self._read(), self.text
        before, _, self.text = self.text.partition(words)
        return before

    def finish(self) -> tuple[int, bytes]:
        """Wait for the end of the program. Return its exit code, and what is left of its output."""
        while self._read():
            pass
        return self.process.wait(LIMIT_S), self.text

    def _read(self) -> bool:
        assert wait_until_readable([self.leader], LIMIT_S), f"nothing more comes: {self.text!r}"
        try:
            piece = os.read(self.leader, 65536)
        except OSError:  # nobody has the other end any more
            piece = b""
        self.text += piece
        return bool(piece)


@contextmanager
def on_terminal(
    where: Place,
    argv: Sequence[str | bytes],
    cwd: Path,
    *,
    env: Mapping[str, str] | None = None,
    stdin: int | None = None,
    stderr: int | None = None,
) -> Iterator[Terminal]:
    """Start a program whose streams are a new terminal, but for those that are given."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", *SIZE, 0, 0))
    os.chmod(os.ttyname(follower), 0o666)  # the place may have another user
    # The program's own session gets the terminal, so that /dev/tty and Ctrl-C work.
    command = where.command(["setsid", "-c", "-w", *argv] if stdin is None else argv, cwd)
    process = subprocess.Popen(
        command,
        env={**where.env, "TERM": "xterm", **(env or {})},
        stdin=follower if stdin is None else stdin,
        stdout=follower,
        stderr=follower if stderr is None else stderr,
    )
    os.close(follower)
    terminal = Terminal(leader, process)
    try:
        yield terminal
    finally:
        process.kill()
        process.wait(LIMIT_S)
        os.close(leader)


def shown(
    where: Place, argv: Sequence[str | bytes], cwd: Path, **options: int | Mapping[str, str]
) -> tuple[int, bytes]:
    """Run a program on a terminal to its end. Return its exit code and all that it has written."""
    with on_terminal(where, argv, cwd, **options) as terminal:  # type: ignore[arg-type]
        return terminal.finish()
