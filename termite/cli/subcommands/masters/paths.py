"""Translate paths of a tree that is built at another path than its own."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from termite.cli.moved_trees.marks import MARK, find_mark
from termite.cli.moved_trees.path_text import PathText
from termite.cli.parser import Parser
from termite.cli.places import working_directory
from termite.cli.subcommands.registry import Subcommand
from termite.engine.errors import UserError


def _add_flags(parser: Parser) -> None:
    add = parser.add_argument
    add("--back", action="store_true", help="translate the tree's own path to the one at which it is built")
    add("--show", action="store_true", help="print both paths: the one at which it is built, a tab, its own")
    add("files", nargs="*", type=Path, metavar="FILE", help="files to read; none: standard input")


def _run(flags: Namespace) -> int:
    found = find_mark(working_directory())
    if found is None:
        raise UserError(
            f"no tree here is built at another path: there is no {MARK}", hint="see --at of termite-make and the like"
        )
    own, build_path = str(found[0]), found[1]
    if flags.show:
        print(f"{build_path}\t{own}")
        return 0
    text = PathText(own, build_path) if flags.back else PathText(build_path, own)
    for line in _lines(flags.files):
        sys.stdout.buffer.write(text.translate(line))
        sys.stdout.buffer.flush()  # it may be a pipe from a build that runs
    return 0


def _lines(files: list[Path]) -> Iterator[bytes]:
    """Yield the lines of the files, or of the standard input."""
    if not files:
        source: BinaryIO = sys.stdin.buffer
        yield from source
        return
    for path in files:
        try:
            with path.open("rb") as file:
                yield from file
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error


SUBCOMMAND = Subcommand(
    "translate paths of a tree that is built at another path (--at) to its own",
    _run,
    _add_flags,
    more="It copies texts, such as messages of a compiler or compile_commands.json, to standard output.",
    example="termite-make --at /build/project 2>&1 | termite-ctl paths",
)
