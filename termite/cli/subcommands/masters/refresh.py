"""Check the files outside the tree for changes."""

from argparse import Namespace

from termite.cli.client import connect_here
from termite.cli.subcommands.registry import Subcommand
from termite.engine.status.control_requests import AskRefresh


def _run(flags: Namespace) -> int:
    connect_here().ask(AskRefresh())
    print("all files outside the tree that workers have seen were checked; jobs that start now see their changes")
    return 0


SUBCOMMAND = Subcommand("check the files outside the tree, such as the compiler, for changes", _run)
