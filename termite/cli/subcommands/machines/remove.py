"""End the worker of a machine that was added over ssh, and remove everything there."""

from argparse import Namespace

from termite.cli.parser import Parser
from termite.cli.subcommands.machines.upgrade import add_wait_flag
from termite.cli.subcommands.registry import Subcommand
from termite.engine.errors import UserError


def _add_flags(parser: Parser) -> None:
    add = parser.add_argument
    add("host", metavar="HOST", help="the machine: ssh://[USER@]HOST[:PORT]")
    add("--forget", action="store_true", help="only remove it from the list, because it is gone")
    add_wait_flag(parser)


def _run(flags: Namespace) -> int:
    from termite.cli.ssh_hosts.host_worker import forget_host, remove_host
    from termite.cli.written_files.host_list import parse_host_address, read_hosts

    address = parse_host_address(flags.host)
    if flags.forget and not read_hosts().find(address.text):
        raise UserError(f"{address.text} was not added", hint="termite-ctl ls shows those that were")
    if flags.forget:
        forget_host(address)
        print(f"{address.text} is in the list no more")
    else:
        remove_host(address, flags.wait)
        print(f"{address.text} is a worker no more, and nothing is left there")
    return 0


SUBCOMMAND = Subcommand(
    "end the worker of a machine that was added, and leave nothing there",
    _run,
    _add_flags,
    more="Its jobs go on to their ends first.",
    example="termite-ctl remove ssh://me@alpha",
)
