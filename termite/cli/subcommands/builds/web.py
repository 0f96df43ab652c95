"""Serve pages of the tree of the current directory: builds, jobs, workers, timelines."""

from argparse import Namespace
from pathlib import Path

from termite.cli.client import find_socket
from termite.cli.flags import print_line
from termite.cli.page_startup.pages_address import parse_page_address, require_packages
from termite.cli.parser import Parser
from termite.cli.places import records_directory, web_address_file, working_directory
from termite.cli.readers.recorded_builds import recorded_builds_here
from termite.cli.subcommands.registry import Subcommand
from termite.cli.written_files.web_address import remove_address, write_address
from termite.engine.paths import MASTER_SOCKET

_PORT = 1240


def _add_flags(parser: Parser) -> None:
    parser.add_argument(
        "--http", default=f"127.0.0.1:{_PORT}", metavar="[HOST:]PORT", help="where to listen; port 0: any free one"
    )
    parser.add_argument(
        "--name", action="append", default=[], metavar="NAME", help="a name by which browsers reach this machine"
    )


def _run(flags: Namespace) -> int:
    require_packages()
    import trio

    from termite.cli.web.serve import serve_pages

    address = parse_page_address(flags.http, _PORT)
    socket = find_socket(working_directory())
    tree = socket.parent if socket else recorded_builds_here().tree
    if not address.is_loopback:
        print_line("termite-ctl", "these pages are not encrypted: whoever reads this network can read the token")
    file = web_address_file(tree)

    def say(url: str) -> None:
        _say_address(url, file)

    try:
        trio.run(serve_pages, tree, socket or tree / MASTER_SOCKET, records_directory(tree), address, flags.name, say)
    finally:
        remove_address(file)
    return 0


def _say_address(url: str, file: Path) -> None:
    try:
        write_address(file, url)
    except OSError as error:
        print_line("termite-ctl", f"builds do not show this address: {file}: {error.strerror}")
    print(f"termite-ctl: pages at {url} (Ctrl-C ends them)", flush=True)


SUBCOMMAND = Subcommand(
    "serve pages: builds with timelines, jobs, workers, metrics",
    _run,
    _add_flags,
    more="Only a browser that has opened the printed address with its token gets in.",
    example="termite-ctl web -http 8080",
)
