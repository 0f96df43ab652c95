"""The flags of `termite-ctl doctor`: every help of termite-ctl reads them, so nothing else is imported."""

from pathlib import Path

from termite.cli.parser import Parser


def add_doctor_flags(parser: Parser) -> None:
    """Add the flags of the command."""
    add = parser.add_argument
    add("--coordinator", default="", metavar="HOST[:PORT]", help="check this farm too")
    add("--secret", type=Path, metavar="FILE", help="file with the secret of the farm (default: secret.txt)")
    add("--json", action="store_true", help="print the findings as JSON")
