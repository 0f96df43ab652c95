"""Start a master for a directory, with a worker of its own."""

import os
from argparse import Namespace
from pathlib import Path

from termite.cli import client
from termite.cli.moved_trees.moves import checked_path
from termite.cli.parser import Parser
from termite.cli.places import working_directory
from termite.cli.subcommands.registry import Subcommand
from termite.engine.errors import UserError, words_of
from termite.engine.paths import MASTER_SOCKET
from termite.engine.status.control_requests import AskStatus
from termite.engine.wire.protocol.foreign_text import LONGEST_LINE, printable


def _add_flags(parser: Parser) -> None:
    at = "path at which the tree is built, as by termite-make --at (default: its own path)"
    parser.add_argument("--at", default="", metavar="PATH", help=at)
    parser.add_argument("directory", nargs="?", default="", metavar="DIR", help="the top of the tree of the master")


def _run(flags: Namespace) -> int:
    given = flags.directory
    here = Path(os.path.realpath(given if os.path.isabs(given) else working_directory() / given))
    if not here.is_dir():
        raise UserError(f"{here} is not a directory")
    root = here if given else client.choose_root(here, here)
    at = checked_path(root, flags.at)
    try:
        master = client.Client(root / MASTER_SOCKET)
    except client.NoMaster:
        _, is_ours = client.start_embedded(root, at=at)
        more = ", with a worker on this machine; it ends when idle for ten minutes" if is_ours else " already"
        print(f"a master serves {printable(str(root), LONGEST_LINE)}{more}")
    else:
        status = master.ask(AskStatus())
        if at and status["root"] != at:
            raise UserError(
                f"a master serves {root} already, at another path than {at}", hint="end it: termite-ctl shutdown"
            )
        if not at and (elsewhere := status["elsewhere"]):
            trouble = f"a master serves {root} already, but termite-ctl was {words_of(elsewhere)}"
            raise UserError(trouble, hint="end it first with `termite-ctl shutdown`")
        print(f"a master serves {printable(str(root), LONGEST_LINE)} already")
    return 0


SUBCOMMAND = Subcommand(
    "start a master that has a worker of its own",
    _run,
    _add_flags,
    more="Without DIR, it serves the tree that termite-make would choose.",
    example="termite-ctl start ~/project",
)
