"""The flags of `termite-ctl doctor`, which every help of termite-ctl reads: imports are few."""

from pathlib import Path

from termite.cli.parser import Parser


def add_doctor_flags(parser: Parser) -> None:
    """Add the flags of the command."""
    add = parser.add_argument
    add("--coordinator", default="", metavar="HOST[:PORT]", help="check this farm too")
    add("--secret", type=Path, metavar="FILE", help="file with the secret of the farm (default: secret.txt)")
    add("--json", action="store_true", help="print the findings as JSON")
