"""The command termite-ninja: stock ninja, with its commands on workers."""

import sys

from termite.cli.build_commands import front_end
from termite.cli.flags import run_command

NINJA = front_end.Tool(
    name="ninja",
    with_word="Cfjkldtw",
    with_rest="",
    dry_letters="nth",
    dry_words=frozenset({"--version", "--help"}),
)


def main() -> int:
    """Run the command termite-ninja and return its exit code."""
    return run_command("termite-ninja", lambda: front_end.run_tool(NINJA, sys.argv[1:]))


if __name__ == "__main__":
    raise SystemExit(main())
