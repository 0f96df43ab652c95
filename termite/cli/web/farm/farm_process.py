"""The process that serves the pages of a farm. A coordinator starts it, and it ends with that.

The coordinator writes one line of JSON to its standard input, which is `PagesStart`, and then keeps
the pipe open. When the pipe is closed, however the coordinator has ended, this process ends.
"""

import logging
import os
import socket
import sys

import msgspec
import trio

from termite.cli.page_startup.pages_start import PagesStart
from termite.cli.readers.farm_questions import Coordinator
from termite.cli.web.access import Guard, bound_token
from termite.cli.web.farm.farm_reader import FarmReader
from termite.cli.web.farm.farm_site import FarmSite
from termite.cli.web.serve import serve_guarded, wait_for_signal
from termite.engine.wire.addresses import join_address


def main() -> None:
    """Run `python -m termite.cli.web.farm.farm_process`."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    with os.fdopen(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as pipe:
        line = b""
        while not line.endswith(b"\n"):
            received = pipe.read(65536)
            if not received:
                return
            line += received
    trio.run(_serve, msgspec.json.decode(line, type=PagesStart))


async def _serve(start: PagesStart) -> None:
    listening = socket.socket(fileno=start.socket_fd)
    port = listening.getsockname()[1]
    host, coordinator_port = start.coordinator
    reader = FarmReader(Coordinator((host, coordinator_port), start.secret, "pages", start.key))
    site = FarmSite(join_address(start.name, coordinator_port), reader, bound_token(start.token, "form", port))
    guard = Guard(site.app(), start.token, port, start.hosts, "termite-coordinator")
    ended = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(wait_for_signal, ended)
        nursery.start_soon(_wait_for_end_of_coordinator, ended)
        nursery.start_soon(reader.follow)
        await serve_guarded(guard, listening, ended)
        nursery.cancel_scope.cancel()


async def _wait_for_end_of_coordinator(ended: trio.Event) -> None:
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as pipe:
        async for _ in pipe:
            pass
    ended.set()


if __name__ == "__main__":
    main()
