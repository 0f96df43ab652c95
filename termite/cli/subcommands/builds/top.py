"""Show what the master of the current directory does now, on the whole terminal."""

import os
import sys
from argparse import Namespace
from pathlib import Path

from termite.cli.client import NoMaster, find_socket
from termite.cli.flags import print_line
from termite.cli.parser import Parser
from termite.cli.places import working_directory
from termite.cli.subcommands.registry import Subcommand
from termite.engine.errors import UserError

_LEAST_S, _MOST_S = 0.2, 60.0
_PLAIN_WIDTH = 120  # where stdout is no terminal


def _add_flags(parser: Parser) -> None:
    parser.add_argument("--once", action="store_true", help="print the state once, as if stdout were no terminal")
    parser.add_argument("--interval", type=float, default=1.0, metavar="S", help="seconds from one drawing to the next")
    parser.add_argument("--coordinator", default="", metavar="HOST[:PORT]", help="show the workers of this farm")
    parser.add_argument(
        "--secret", type=Path, default=Path("secret.txt"), metavar="FILE", help="file with the secret of the farm"
    )


def _run(flags: Namespace) -> int:
    if not _LEAST_S <= flags.interval <= _MOST_S:
        raise UserError(f"-interval is a number of seconds from {_LEAST_S:g} to {_MOST_S:g}, not {flags.interval:g}")
    if flags.coordinator:
        return _run_farm(flags)
    path = find_socket(working_directory())
    if path is None:
        raise NoMaster(
            f"no master runs in {working_directory()} or above it", hint="start one with `termite-ctl start`"
        )
    import trio

    if _is_once(flags):
        trio.run(_print_once, path)
        return 0
    from termite.cli.readers.live_terminal import show_master

    trio.run(show_master, path, flags.interval)
    return 0


def _is_once(flags: Namespace) -> bool:
    if flags.once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        return True
    is_plain = os.environ.get("TERM", "dumb") == "dumb"
    if is_plain:
        print_line("termite-ctl", "a terminal with TERM=dumb has no screen: the state is printed once")
    return is_plain


def _run_farm(flags: Namespace) -> int:
    import trio

    from termite.cli.display.farm_screen import FarmView, farm_lines
    from termite.cli.readers.farm_follower import list_workers
    from termite.cli.readers.farm_questions import Coordinator
    from termite.engine.fleet.coordinator import COORDINATOR_PORT
    from termite.engine.wire.addresses import join_address, split_address
    from termite.engine.wire.identity import read_secret

    host, port = split_address(flags.coordinator, COORDINATOR_PORT)
    coordinator = Coordinator((host, port), read_secret(flags.secret), "top")
    if not _is_once(flags):
        from termite.cli.readers.live_terminal import show_farm

        trio.run(show_farm, coordinator, flags.interval)
        return 0
    view = FarmView(join_address(host, port))
    trio.run(list_workers, coordinator, view)
    width = os.get_terminal_size().columns if sys.stdout.isatty() else _PLAIN_WIDTH
    print("\n".join(line.text.rstrip() for line in farm_lines(view, width, 2 * len(view.workers) + 5)).rstrip())
    return 0


async def _print_once(path: Path) -> None:
    import time

    from termite.cli.display.top_screen import TopState, TopView, screen_lines
    from termite.engine.history.live_stream import open_live_stream

    async with open_live_stream(path) as stream:
        state = TopState()
        for event in await stream.wait_for_events():
            state.apply(event)
    width = os.get_terminal_size().columns if sys.stdout.isatty() else _PLAIN_WIDTH
    height = len(state.live.jobs) + 2 * len(state.live.workers) + len(state.live.builds) + 10
    lines = [line.text.rstrip() for line in screen_lines(state, TopView(), time.time(), width, 3 * height)]
    print("\n".join(lines).rstrip())


SUBCOMMAND = Subcommand(
    "show live what runs where, what waits, and how the workers are",
    _run,
    _add_flags,
    more="With -coordinator: all workers of a farm, without a tree. "
    "Keys: up and down mark a job, enter shows it, tab changes the list, ? explains all, q quits.",
)
