"""A program on a terminal of our own, and its screen as HTML: for pictures of `termite-ctl top`."""

import fcntl
import html
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from termite.engine.loop.readiness import wait_until_readable

SIZE = (16, 92)  # rows and columns
# The colours in which a terminal shows bold, reversed and red text. `top` uses no others.
STYLES = {
    b"1": "color:#fff;font-weight:bold",
    b"7": "color:#15181c;background:#e4e7eb",
    b"31": "color:#f28b82",
}


class Screen:
    """The screen of a program that draws whole lines, as `top` does."""

    def __init__(self, command: Sequence[str | Path], cwd: Path, env: Mapping[str, str]) -> None:
        self._end, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("4H", *SIZE, 0, 0))
        self._process = subprocess.Popen(
            command, cwd=cwd, env={**env, "TERM": "xterm"}, stdin=inner, stdout=inner, start_new_session=True
        )
        os.close(inner)
        self._rows: dict[int, bytes] = {}
        self._sent = b""

    def follow(self, for_s: float) -> str:
        """Read for so long what the program draws, and return the text that is on the screen."""
        limit_s = time.monotonic() + for_s
        while (left_s := limit_s - time.monotonic()) > 0:
            if wait_until_readable([self._end], left_s):
                self._sent += os.read(self._end, 65536)
        *whole, self._sent = re.split(rb"(?=\x1b\[\d+;1H)", self._sent)
        for drawn in (*whole, self._sent):
            if found := re.match(rb"\x1b\[(\d+);1H(.*)", drawn, re.DOTALL):
                self._rows[int(found[1])] = found[2]
        return "\n".join(re.sub(rb"\x1b\[\d*m", b"", text).decode() for _, text in sorted(self._rows.items()))

    def as_html(self) -> str:
        """Return the screen with its styles."""
        return "\n".join(_styled(self._rows.get(row, b"")) for row in range(1, SIZE[0] + 1))

    def press(self, keys: bytes) -> None:
        """Type keys."""
        os.write(self._end, keys)

    def close(self) -> None:
        """End the program."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)
        os.close(self._end)


def _styled(row: bytes) -> str:
    found = re.match(rb"\x1b\[(\d+)m(.*?)\x1b\[0?m", row, re.DOTALL)
    text = html.escape((found[2] if found else row).decode())
    return f'<span style="{STYLES[found[1]]}">{text}</span>' if found else text
