"""Serve pages over HTTP, until they shall end."""

import logging
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.types import ASGIApp

from termite.cli.page_startup.pages_address import PageAddress, new_token, open_listener, page_url
from termite.cli.web.access import Guard, bound_token
from termite.cli.web.live_follower import LiveFollower
from termite.cli.web.site import Site
from termite.engine.history.past_builds import PastBuilds
from termite.engine.host.descriptors import raise_file_limit

CLOSE_S = 2.0  # requests that are answered when the process is told to end


async def serve_pages(
    tree: Path,
    socket_path: Path,
    records: Path,
    address: PageAddress,
    names: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """Serve the pages of a tree until SIGINT or SIGTERM.

    `say` gets the address of the front page, with its token. `names` are further names by which
    people reach this machine. Raise UserError if the address cannot be listened on.
    """
    listening = open_listener(address)
    token = new_token()
    port = listening.getsockname()[1]
    follower = LiveFollower(socket_path)
    site = Site(tree, PastBuilds(records), follower, bound_token(token, "form", port))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follower.follow)
        ended = trio.Event()
        await nursery.start(wait_for_signal, ended)
        host = address.browser_host(names)
        say(page_url(host, port, token))
        guard = Guard(site.app(), token, port, [*names, host, address.shown_host])
        await serve_guarded(guard, listening, ended)
        nursery.cancel_scope.cancel()


async def serve_guarded(guard: ASGIApp, listening: socket.socket, ended: trio.Event) -> None:
    """Serve on a socket, which is closed afterwards, until `ended` is set."""
    config = Config()
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    raise_file_limit()  # an idle connection of a stranger takes a descriptor for some seconds
    config.graceful_timeout = CLOSE_S
    config.bind = [f"fd://{listening.detach()}"]  # the server closes it
    await serve(guard, config, shutdown_trigger=ended.wait)  # type: ignore[arg-type]


async def wait_for_signal(ended: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Set `ended` at SIGINT and SIGTERM, until cancelled."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            ended.set()
