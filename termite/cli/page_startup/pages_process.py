"""Run the pages of a farm in a process of their own, so that no page can slow the coordinator.

The coordinator listens for browsers itself and passes the socket on. Therefore a new process serves
at the same address, after the old one has died.
"""

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
import trio

from termite.cli.page_startup.pages_address import (
    PageAddress,
    new_token,
    open_listener,
    page_url,
    require_packages,
)
from termite.cli.page_startup.pages_start import PagesStart
from termite.engine.host.native_programs import own_variables
from termite.engine.wire.protocol.foreign_text import printable

PROGRAM = (sys.executable, "-P", "-m", "termite.cli.web.farm.farm_process")
KEY_BYTES = 32
FIRST_PAUSE_S = 1.0  # from an end to the next start; each further one doubles it
LONGEST_PAUSE_S = 60.0
SOUND_S = 60.0  # who has lived so long is started again as if it were the first time
STOP_S = 4.0  # for open requests; then the process is killed
LINE_BYTES = 8 * 1024  # of its stderr
LINES_LOGGED = 100  # of one process: a page that fails again and again must not fill the log

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FarmPages:
    """The pages of a farm, whose socket is open.

    `hosts` are names by which browsers reach them, the one to show first.
    """

    address: PageAddress
    listening: socket.socket
    hosts: tuple[str, ...]
    token: str = field(default_factory=new_token)
    key: bytes = field(default_factory=lambda: os.urandom(KEY_BYTES))

    @property
    def url(self) -> str:
        """The address of the front page, with its token."""
        return page_url(self.hosts[0], self.listening.getsockname()[1], self.token)


def open_farm_pages(address: PageAddress, names: Sequence[str]) -> FarmPages:
    """Listen for browsers. Raise UserError if packages are missing or the address is not free."""
    require_packages()
    return FarmPages(address, open_listener(address), (address.browser_host(names), *names, address.shown_host))


async def keep_pages(pages: FarmPages, secret: bytes, coordinator: tuple[str, int]) -> None:
    """Serve the pages until cancelled, and start the process again whenever it ends.

    `coordinator` is the host and the port at which the process reaches the coordinator.
    """
    start = PagesStart(
        coordinator, os.uname().nodename, secret, pages.key, pages.token, pages.hosts, pages.listening.fileno()
    )
    pause_s = FIRST_PAUSE_S
    while True:
        started_s = trio.current_time()
        reason = await _serve_once(start)
        if trio.current_time() - started_s > SOUND_S:
            pause_s = FIRST_PAUSE_S
        log.warning("pages-ended seconds=%d reason=%s", pause_s, reason)
        await trio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def _serve_once(start: PagesStart) -> str:
    """Run the process to its end, and return why it has ended."""
    try:
        process = await trio.lowlevel.open_process(
            PROGRAM,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(start.socket_fd,),
            cwd="/",
            env=own_variables("PATH"),
            start_new_session=True,  # Ctrl-C must reach the coordinator only, which then ends this
        )
    except OSError as error:
        return f"it cannot be started: {error.strerror}"
    assert process.stdin is not None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_log_lines, process)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await process.stdin.send_all(msgspec.json.encode(start) + b"\n")
            log.info("pages-started pid=%d", process.pid)
            code = await process.wait()
            nursery.cancel_scope.cancel()
    finally:
        await _end(process)
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


async def _end(process: trio.Process) -> None:
    """End the process by the end of its standard input, and kill it if that does not help."""
    with trio.CancelScope(shield=True):
        assert process.stdin is not None
        await process.stdin.aclose()
        with trio.move_on_after(STOP_S):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _log_lines(process: trio.Process) -> None:
    """Write what the process says on stderr to the log, and read on without end."""
    assert process.stderr is not None
    rest, logged = b"", 0
    async with process.stderr as stream:
        async for received in stream:
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                if logged < LINES_LOGGED and line.strip():
                    log.warning("pages-said line=%s", printable(line.decode(errors="replace").rstrip()))
                    logged += 1
            rest = rest[-LINE_BYTES:]
