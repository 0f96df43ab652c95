"""Serve the pages of a tree over HTTP, until a signal ends the process."""

import logging
import secrets
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from termite.cli.web.access import Guard
from termite.cli.web.live_follower import LiveFollower
from termite.cli.web.site import Site
from termite.engine.errors import UserError
from termite.engine.history.past_builds import PastBuilds

TOKEN_BYTES = 16
CLOSE_S = 2.0  # requests that are answered when the process is told to end


async def serve_pages(
    tree: Path,
    socket_path: Path,
    records: Path,
    address: tuple[str, int],
    names: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """Serve until SIGINT or SIGTERM. `say` gets the address of the front page, with its token.

    `address` is a host name or address and a port (0: any free one). `names` are further names by
    which people reach this machine. Raise UserError if the address cannot be listened on.
    """
    listening = _listen(address)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    follower = LiveFollower(socket_path)
    site = Site(tree, PastBuilds(records), follower, token)
    config = Config()
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.graceful_timeout = CLOSE_S
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follower.follow)
        ended = trio.Event()
        nursery.start_soon(_wait_for_signal, ended)
        say(f"http://{host}:{listening.getsockname()[1]}/?token={token}")
        config.bind = [f"fd://{listening.detach()}"]  # the server closes it
        app = Guard(site.app(), token, [*names, host])
        await serve(app, config, shutdown_trigger=ended.wait)  # type: ignore[arg-type]
        nursery.cancel_scope.cancel()


async def _wait_for_signal(ended: trio.Event) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            ended.set()


def _listen(address: tuple[str, int]) -> socket.socket:
    host, port = address
    try:
        family, _, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(found)
        listening.listen()
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another one with -http HOST:PORT"
        ) from error
    return listening
