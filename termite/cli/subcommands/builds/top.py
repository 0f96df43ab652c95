"""Show what the master of the current directory does now, on the whole terminal."""

import os
import sys
from argparse import Namespace
from pathlib import Path

from termite.cli.client import NoMaster, find_socket
from termite.cli.parser import Parser
from termite.cli.places import working_directory
from termite.cli.subcommands.registry import Subcommand
from termite.engine.errors import UserError

_LEAST_S, _MOST_S = 0.2, 60.0
_PLAIN_WIDTH = 120  # where stdout is no terminal


def _add_flags(parser: Parser) -> None:
    parser.add_argument("--once", action="store_true", help="print the state once, as where stdout is no terminal")
    parser.add_argument("--interval", type=float, default=1.0, metavar="S", help="seconds from one drawing to the next")


def _run(flags: Namespace) -> int:
    if not _LEAST_S <= flags.interval <= _MOST_S:
        raise UserError(f"-interval is a number of seconds from {_LEAST_S:g} to {_MOST_S:g}, not {flags.interval:g}")
    path = find_socket(working_directory())
    if path is None:
        raise NoMaster(
            f"no master runs in {working_directory()} or above it", hint="start one with `termite-ctl start`"
        )
    import trio

    if flags.once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        trio.run(_print_once, path)
        return 0
    from termite.cli.readers.live_terminal import show_live

    trio.run(show_live, path, flags.interval)
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
    height = len(state.live.jobs) + len(state.live.workers) + len(state.live.builds) + 10
    lines = [line.text.rstrip() for line in screen_lines(state, TopView(), time.time(), width, 3 * height)]
    print("\n".join(lines).rstrip())


SUBCOMMAND = Subcommand(
    "show live what runs where, what waits, and how the workers are",
    _run,
    _add_flags,
    more="Keys: up and down mark a job, enter shows it, tab changes the list, ? explains all, q quits.",
)
