"""End the master of the current directory."""

import contextlib
from argparse import Namespace

from termite.cli.client import NoMaster, connect_here
from termite.cli.subcommands.registry import Subcommand
from termite.engine.status.control_requests import AskShutdown
from termite.engine.wire.protocol.foreign_text import LONGEST_LINE, printable


def _run(flags: Namespace) -> int:
    try:
        master = connect_here()
    except NoMaster as error:  # so that a script may end a master that it has perhaps not started
        print(printable(f"nothing to end: {error.message}", LONGEST_LINE))
        return 0
    with contextlib.suppress(NoMaster):  # it may end before it answers
        master.ask(AskShutdown())
    master.wait_for_its_end()
    print(printable(f"the master of {master.path.parent} has ended", LONGEST_LINE))
    return 0


SUBCOMMAND = Subcommand(
    "end the master",
    _run,
    more="Jobs that run on workers are stopped, and start again on this machine. If no master runs, this is a success.",
)
