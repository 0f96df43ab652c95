"""ninja: calls from within another build run locally, with their own commands distributed again."""

from collections.abc import Mapping, Sequence

from termite import Command, Rule, command_regexp, hookimpl

TOOLS = ("ninja", "samu", "ninja-build")

RECURSIVE = command_regexp(r"ninja(?:-build)?|samu")


@hookimpl
def termite_rules() -> list[Rule]:
    """A ninja within a build schedules jobs: it belongs here, and holds no slot."""
    return [
        Rule(RECURSIVE, local=True, recurse=True, skip_refresh=True, source="ninja plugin", words=("ninja", "samu"))
    ]


@hookimpl
def termite_build(
    tool: str, args: Sequence[str], cwd: str, env: Mapping[str, str], preload: Mapping[str, str]
) -> Command | None:
    """Stock ninja. Its hashes are of the commands as written, so a tree can go back and forth."""
    if tool not in TOOLS:
        return None
    return Command((tool, *args), tool, True, cwd, {**env, **preload}, " ".join((tool, *args)))
