"""Replace the termite of machines that were added over ssh."""

from argparse import Namespace
from pathlib import Path

from termite.cli.amounts import parse_seconds
from termite.cli.parser import Parser
from termite.cli.subcommands.machines.add import BUNDLE_HELP
from termite.cli.subcommands.registry import Subcommand
from termite.engine.errors import UserError

WAIT_S = 900.0


def add_wait_flag(parser: Parser) -> None:
    """Add the flag for the time that jobs get to end."""
    help_text = "seconds for running jobs to end; then they start again elsewhere"
    parser.add_argument("--wait", type=parse_seconds, default=WAIT_S, metavar="S", help=help_text)


def _add_flags(parser: Parser) -> None:
    parser.add_argument(
        "hosts", nargs="*", metavar="HOST", help="the machines: ssh://...; default: all that were added"
    )
    parser.add_argument("--bundle", type=Path, metavar="FILE", help=BUNDLE_HELP)
    add_wait_flag(parser)


def _run(flags: Namespace) -> int:
    """Upgrade the hosts one after the other. Raise the first error when all have been tried."""
    from termite.cli.flags import report
    from termite.cli.ssh_hosts.bundle_source import find_bundle
    from termite.cli.ssh_hosts.host_worker import upgrade_host
    from termite.cli.written_files.host_list import parse_host_address, read_hosts

    known = read_hosts()
    addresses = [parse_host_address(word).text for word in flags.hosts] or [host.address for host in known.hosts]
    entries = {address: known.find(address) for address in addresses}
    for address, entry in entries.items():
        if entry is None:
            raise UserError(f"{address} was not added", hint="termite-ctl ls shows those that were")
    if not entries:
        raise UserError("no host was added", hint="termite-ctl add does it")
    bundle = find_bundle(flags.bundle)
    failed: list[Exception] = []
    for entry in entries.values():
        try:
            if entry is not None:
                upgrade_host(entry, bundle, flags.wait)
        except UserError as error:
            report("termite-ctl", error)
            failed.append(error)
        except Exception as error:  # around one host: the others are upgraded, too
            report("termite-ctl", UserError(f"{entry and entry.address}: {error!r}"))
            failed.append(error)
    for ours in failed:
        if not isinstance(ours, UserError):
            raise ours
    if failed:
        raise UserError(f"{len(failed)} of {len(entries)} hosts were not upgraded")
    return 0


SUBCOMMAND = Subcommand(
    "replace the termite of machines that were added",
    _run,
    _add_flags,
    more="The jobs of a machine go on to their ends first, and other machines get the next ones. If the new termite "
    "does not run there, the earlier one is started again.",
    example="termite-ctl upgrade ssh://me@alpha",
)
