"""Make another machine a worker, over ssh."""

import os
from argparse import Namespace
from pathlib import Path

from termite.cli.amounts import parse_port, parse_positive
from termite.cli.parser import Parser
from termite.cli.subcommands.registry import Subcommand

BUNDLE_HELP = "archive with termite for that machine (default: made of the termite that runs here)"


def _add_flags(parser: Parser) -> None:
    add = parser.add_argument
    add("host", metavar="HOST", help="the machine: ssh://[USER@]HOST[:PORT]")
    add("--jobs", type=parse_positive, metavar="N", help="number of jobs at once there (default: as termite-worker)")
    add(
        "--coordinator",
        default="localhost",
        metavar="HOST[:PORT]",
        help="the farm; localhost is this machine, as that machine sees it",
    )
    add("--secret", type=Path, default=Path("secret.txt"), metavar="FILE", help="file with the secret of that farm")
    add("--port", type=parse_port, metavar="PORT", help="TCP port of the worker there (default: as termite-worker)")
    add("--bundle", type=Path, metavar="FILE", help=BUNDLE_HELP)


def _run(flags: Namespace) -> int:
    from termite.cli.ssh_hosts.host_trial import read_farm
    from termite.cli.ssh_hosts.host_worker import add_host
    from termite.cli.written_files.host_list import AddedHost, parse_host_address

    address = parse_host_address(flags.host)
    farm = read_farm(flags.coordinator, flags.secret)
    words = [word for name in ("jobs", "port") if getattr(flags, name) is not None for word in _flag(flags, name)]
    entry = AddedHost(address.text, farm.text, os.path.abspath(flags.secret))
    add_host(address, farm, entry, flags.bundle, words)
    return 0


def _flag(flags: Namespace, name: str) -> tuple[str, str]:
    return f"-{name}", str(getattr(flags, name))


SUBCOMMAND = Subcommand(
    "make another machine a worker, over ssh",
    _run,
    _add_flags,
    more="The machine needs Python and sshd, and neither root nor a compiler. termite and the secret of the farm are "
    "sent to it, a worker is started, and a small job is tried. If anything fails, nothing is left there.",
    example="termite-ctl add ssh://me@alpha -jobs 8 -coordinator buildhost",
)
