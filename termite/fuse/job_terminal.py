"""The terminals of one job, from the mirror's side: their leading ends, which its pid 1 sends.

The mirror reads the output from them as from a pipe. If no process has the terminal open any more,
a read fails with EIO, which is the end.
"""

import contextlib
import fcntl
import os
import struct
import termios

import trio

from termite.engine.model import TerminalWish, WindowSize
from termite.fuse import mirror_calls

# Local modes that only a program changes which a person is meant to type at.
TYPING_MODES = termios.ICANON | termios.ECHO
LOCAL_MODES = 3  # the index in what tcgetattr returns


class JobTerminal:
    """The terminals of a job that wants `wish`. Until `open` was called there are none.

    `early_report` is what the sandbox sent in place of terminals: it has ended already.
    """

    def __init__(self, wish: TerminalWish) -> None:
        self.wish = wish
        self.early_report: bytes | None = None
        self._size = wish.size
        self._leaders: list[int] = []
        self._is_settled = trio.Event()  # there are terminals, or there will be none

    def open(self, leaders: list[int]) -> None:
        """Take the leading ends, as the sandbox has sent them."""
        self._leaders = leaders
        for leader in leaders:
            os.set_blocking(leader, False)
        if self._size != self.wish.size:
            self.resize(self._size)
        self._is_settled.set()

    def close(self) -> None:
        """Close the leading ends, when the job is dead or was never started."""
        leaders, self._leaders = self._leaders, []
        for leader in leaders:
            trio.lowlevel.notify_closing(leader)
            os.close(leader)
        self._is_settled.set()

    @property
    def tags(self) -> dict[int, bytes]:
        """The tag byte of each terminal's output, by descriptor."""
        wish = self.wish
        tags = (b"1", b"2") if wish.is_stderr_apart else (b"1",) if wish.stdout else (b"2",)
        return dict(zip(self._leaders, tags, strict=False))

    def resize(self, size: WindowSize) -> None:
        """Set the size of the windows; the kernel notifies the job by SIGWINCH."""
        self._size = size
        packed = struct.pack("4H", size.rows, size.columns, size.width, size.height)
        for leader in self._leaders:
            with contextlib.suppress(OSError):  # nobody has the terminal open any more
                fcntl.ioctl(leader, termios.TIOCSWINSZ, packed)

    async def type(self, content: bytes) -> None:
        """Type at the first terminal. Wait until the job has one, and until it has taken all.

        Drop the rest if the job ends.
        """
        await self._is_settled.wait()
        while content and self._leaders:
            try:
                content = content[mirror_calls.write(self._leaders[0], content) :]
            except BlockingIOError:
                with contextlib.suppress(trio.ClosedResourceError):
                    await trio.lowlevel.wait_writable(self._leaders[0])
            except OSError:  # nobody has the terminal open any more
                return

    @property
    def is_typed_for(self) -> bool:
        """True if the job has changed the terminal for somebody who types.

        A password or an editor needs that; nothing that only prints does.
        """
        if self.wish.is_typed_at:
            return False
        try:
            modes = [termios.tcgetattr(leader)[LOCAL_MODES] for leader in self._leaders]
        except termios.error:  # nobody has the terminal open any more
            return False
        return any(mode & TYPING_MODES != TYPING_MODES for mode in modes)
