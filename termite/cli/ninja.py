"""termite-ninja: stock ninja, its commands run on workers."""

import sys

from termite.cli import front_end
from termite.cli.flags import run_command

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
