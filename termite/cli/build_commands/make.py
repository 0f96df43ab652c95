"""The command termite-make: stock GNU make, with its commands on workers."""

import sys

from termite.cli.build_commands import front_end
from termite.cli.flags import run_command

MAKE = front_end.Tool(
    name="make",
    with_word="CfIoWE",
    with_rest="jlO",
    dry_letters="nqvh",
    dry_words=frozenset({"--just-print", "--dry-run", "--recon", "--question", "--version", "--help"}),
)


def main() -> int:
    """Run the command termite-make and return its exit code."""
    return run_command("termite-make", lambda: front_end.run_tool(MAKE, sys.argv[1:]))


if __name__ == "__main__":
    raise SystemExit(main())
