"""Let a worker take no new jobs. Its jobs go on to their ends."""

from argparse import Namespace
from pathlib import Path

from termite.cli.parser import Parser
from termite.cli.subcommands.registry import Subcommand
from termite.engine.errors import UserError
from termite.engine.status.control_requests import AskDrain


def add_worker_flags(parser: Parser) -> None:
    """Add the flags that name a worker, and the farm that it belongs to."""
    add = parser.add_argument
    add("worker", metavar="WORKER", help="the name of a worker, as status and top show it, or ssh://HOST")
    add("--coordinator", default="", metavar="HOST[:PORT]", help="the farm; default: that of the master of this tree")
    add("--secret", type=Path, default=Path("secret.txt"), metavar="FILE", help="file with the secret of that farm")


def drain_worker(flags: Namespace, *, is_drained: bool) -> int:
    """Drain the worker that the flags name, or end that. Raise UserError if it cannot be asked.

    A host that was added over ssh knows its farm. The flags then have its name and its farm.
    """
    if "://" in flags.worker:
        _take_added_host(flags)
    if flags.coordinator:
        import trio

        from termite.cli.readers.farm_questions import Coordinator
        from termite.engine.fleet.coordinator import COORDINATOR_PORT
        from termite.engine.wire.addresses import split_address
        from termite.engine.wire.identity import read_secret

        address = split_address(flags.coordinator, COORDINATOR_PORT)
        coordinator = Coordinator(address, read_secret(flags.secret), "drain")

        async def drain() -> None:
            await coordinator.drain(flags.worker, is_drained=is_drained)

        trio.run(drain)
    else:
        from termite.cli.client import connect_here

        connect_here().ask(AskDrain(flags.worker, is_drained))
    return 0


def _take_added_host(flags: Namespace) -> None:
    from termite.cli.written_files.host_list import parse_host_address, read_hosts

    address = parse_host_address(flags.worker)
    host = read_hosts().find(address.text)
    if host is None:
        raise UserError(f"{address.text} was not added", hint="termite-ctl ls shows those that were")
    flags.worker, flags.coordinator, flags.secret = host.name, host.coordinator, Path(host.secret)


def _run(flags: Namespace) -> int:
    code = drain_worker(flags, is_drained=True)
    print(f"{flags.worker} takes no new jobs, until `termite-ctl undrain {flags.worker}` or its restart")
    return code


SUBCOMMAND = Subcommand(
    "let a worker take no new jobs, while its jobs go on",
    _run,
    add_worker_flags,
    more="Masters send their jobs to other workers. The worker stays drained if its coordinator is restarted.",
    example="termite-ctl drain alpha:1235 -coordinator buildhost",
)
