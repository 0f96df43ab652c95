"""The command termite-ninja: stock ninja, with its commands on workers."""

import sys

from termite.cli.flags import run_command
from termite.cli.front_ends import front_end

TOOL = front_end.Tool(
    name="ninja",
    with_word="Cfjkldtw",
    with_rest="",
    dry_letters="nth",
    dry_words=frozenset({"--version", "--help"}),
)


def main() -> int:
    """Run the command termite-ninja and return its exit code."""
    return run_command("termite-ninja", lambda: front_end.run_tool(TOOL, sys.argv[1:]))


if __name__ == "__main__":
    raise SystemExit(main())
