"""Show the last records of the log of the master, or of one of its workers."""

import time
from argparse import Namespace

from termite.cli.amounts import parse_count
from termite.cli.client import Client, NoMaster, connect_here
from termite.cli.parser import Parser
from termite.cli.subcommands.registry import Subcommand
from termite.engine.status.control_requests import AskLogs, ControlAnswer
from termite.engine.wire.protocol.foreign_text import LONGEST_LINE, printable

POLL_S = 0.5
AT_ONCE = 1000  # records of an answer while the log is followed


def _add_flags(parser: Parser) -> None:
    add = parser.add_argument
    add("worker", nargs="?", default="", metavar="WORKER", help="the name of a worker that `termite-ctl status` shows")
    add("-f", "--follow", action="store_true", help="go on and show new records, until Ctrl-C or the master's end")
    add("--lines", type=parse_count, default=50, metavar="N", help="number of records to begin with")


def _run(flags: Namespace) -> int:
    master = connect_here()
    number = _show(master.ask(AskLogs(flags.worker, 0, min(flags.lines, AT_ONCE))))
    while flags.follow:
        time.sleep(POLL_S)
        try:
            number = _show(_next(master, flags.worker, number))
        except NoMaster:
            return 0  # its last record says that it ends
    return 0


def _next(master: Client, worker: str, number: int) -> ControlAnswer:
    return master.ask(AskLogs(worker, number, AT_ONCE))


def _show(answer: ControlAnswer) -> int:
    """Print the records of an answer, and return the number of the last one."""
    for record in answer["records"]:
        for line in str(record).split("\n"):
            print(printable(line, LONGEST_LINE), flush=True)
    number: int = answer["number"]
    return number


SUBCOMMAND = Subcommand(
    "show the end of the master's log, or of a worker's",
    _run,
    _add_flags,
    more="The master answers from its memory, wherever its log goes. A worker shows no records about other masters.",
    example="termite-ctl logs -f",
)
