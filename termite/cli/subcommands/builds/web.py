"""Serve pages of the tree of the current directory: builds, jobs, workers, timelines."""

import ipaddress
import sys
from argparse import Namespace

from termite.cli.client import SOCKET, find_socket
from termite.cli.parser import Parser
from termite.cli.places import records_directory, working_directory
from termite.cli.readers.recorded_builds import recorded_builds_here
from termite.cli.subcommands.registry import Subcommand
from termite.engine.errors import UserError

_PORT = 1240


def _add_flags(parser: Parser) -> None:
    parser.add_argument(
        "--http", default=f"127.0.0.1:{_PORT}", metavar="[HOST:]PORT", help="where to listen; port 0: any free one"
    )
    parser.add_argument(
        "--name", action="append", default=[], metavar="NAME", help="a name by which browsers reach this machine"
    )


def _run(flags: Namespace) -> int:
    try:
        import trio

        from termite.cli.web.serve import serve_pages
    except ImportError as error:
        raise UserError(
            f"the pages need Python packages that are not installed: {error.name}",
            hint="pip install termite[web]",
        ) from error
    address = _address(flags.http)
    socket = find_socket(working_directory())
    tree = socket.parent if socket else recorded_builds_here().tree
    if not ipaddress.ip_address(address[0]).is_loopback if _is_address(address[0]) else address[0] != "localhost":
        print(
            "termite-ctl: these pages are not encrypted: whoever reads this network can read the token",
            file=sys.stderr,
        )
    trio.run(serve_pages, tree, socket or tree / SOCKET, records_directory(tree), address, flags.name, _say_address)
    return 0


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (port.isdecimal() and int(port) < 65536):
        raise UserError(f"-http is [HOST:]PORT, not {text}", hint=f"such as -http 127.0.0.1:{_PORT}")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _say_address(url: str) -> None:
    print(f"termite-ctl: pages at {url} (Ctrl-C ends them)", flush=True)


SUBCOMMAND = Subcommand(
    "serve pages: builds with timelines, jobs, workers, metrics",
    _run,
    _add_flags,
    more="Only a browser that has opened the printed address with its token gets in.",
    example="termite-ctl web -http 8080",
)
