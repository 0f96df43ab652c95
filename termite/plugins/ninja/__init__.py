"""The ninja plugin: a ninja within another build runs locally; its commands are distributed."""

from collections.abc import Mapping, Sequence

from termite import Command, Rule, command_regexp, hookimpl

TOOLS = ("ninja", "samu", "ninja-build")

RECURSIVE = command_regexp(r"ninja(?:-build)?|samu")


@hookimpl
def termite_rules() -> list[Rule]:
    """Keep a ninja within a build local: it schedules jobs and holds no slot."""
    return [
        Rule(RECURSIVE, local=True, recurse=True, skip_refresh=True, source="ninja plugin", words=("ninja", "samu"))
    ]


@hookimpl
def termite_build(
    tool: str, args: Sequence[str], cwd: str, env: Mapping[str, str], preload: Mapping[str, str]
) -> Command | None:
    """Run the stock ninja.

    Its log has hashes of the commands as the project wrote them. Therefore builds with and without
    termite can alternate in one tree, and do not rebuild each other's outputs.
    """
    if tool not in TOOLS:
        return None
    return Command((tool, *args), tool, True, cwd, {**env, **preload}, " ".join((tool, *args)))
