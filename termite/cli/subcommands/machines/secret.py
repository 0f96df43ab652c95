"""Make the file with the secret of a cluster."""

import os
import secrets
from argparse import Namespace
from pathlib import Path

from termite.cli.parser import Parser
from termite.cli.subcommands.registry import Subcommand
from termite.engine.errors import UserError

FILE_BYTES = 32


def _add_flags(parser: Parser) -> None:
    parser.add_argument("file", nargs="?", default="secret.txt", metavar="FILE", help="the file to make")


def _run(flags: Namespace) -> int:
    path = Path(flags.file)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UserError(f"{path} exists already", hint="use it, or remove it first") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    with os.fdopen(fd, "w") as file:
        file.write(secrets.token_hex(FILE_BYTES) + "\n")
    print(f"made {path}: copy it to every machine of the cluster, and keep it readable by you alone")
    return 0


SUBCOMMAND = Subcommand(
    "make the file with a cluster's secret",
    _run,
    _add_flags,
    more="An existing file is kept, and the command fails.",
    example="termite-ctl secret ~/secret.txt",
)
