"""termite-ninja: stock ninja, its commands run on workers."""

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
    """The command termite-ninja."""
    return run_command("termite-ninja", lambda: front_end.run(TOOL, sys.argv[1:]))


if __name__ == "__main__":
    raise SystemExit(main())
