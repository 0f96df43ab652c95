"""Check the files outside the tree for changes."""

from argparse import Namespace

from termite.cli.client import connect_here
from termite.cli.subcommands.registry import Subcommand


def _run(flags: Namespace) -> int:
    reply = connect_here().ask("refresh")
    print(f"all files that workers have seen were checked; the journal is at entry {reply['journal']}")
    return 0


SUBCOMMAND = Subcommand("check the files outside the tree, such as the compiler, for changes", _run)
