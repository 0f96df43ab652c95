"""Make a key with which results are signed for a shared store."""

from argparse import Namespace
from pathlib import Path

from termite.cli.parser import Parser
from termite.cli.subcommands.registry import Subcommand
from termite.engine.errors import UserError


def _add_flags(parser: Parser) -> None:
    parser.add_argument("file", nargs="?", default="signkey.pem", metavar="FILE", help="the file to make")


def _run(flags: Namespace) -> int:
    from termite.engine.recall.shared_store.writer_keys import make_writer_key  # takes a while to import

    path = Path(flags.file)
    try:
        key = make_writer_key(path)
    except FileExistsError:
        raise UserError(f"{path} exists already", hint="use it, or remove it first") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    print(f"made {path}: keep it readable by you alone, and give it to machines whose results all may use")
    print(f"public half, for TrustedWriters of all who read: {key.public_text}")
    return 0


SUBCOMMAND = Subcommand(
    "make a key with which results are signed for a shared store",
    _run,
    _add_flags,
    more="An existing file is kept, and the command fails. The key has nothing to do with the cluster's secret.",
    example="termite-ctl signkey ~/signkey.pem",
)
