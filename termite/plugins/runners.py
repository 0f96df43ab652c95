"""The plugin for tools that start commands like make does: bmake, remake, just, dune and SCons.

Each of them starts its commands by exec or posix_spawn, so that the preload library distributes
them. SCons is a program of Python, which must be told to the library by the interpreter's name.
"""

from collections.abc import Mapping, Sequence

from termite import Command, Rule, command_regexp, hookimpl

TOOLS = ("bmake", "pmake", "remake", "just", "dune", "scons")
INTERPRETERS = "python3:python"
_SOURCE = "runners plugin"


@hookimpl
def termite_rules() -> list[Rule]:
    """Keep a `just` within a build local: it schedules commands, as a make does."""
    return [Rule(command_regexp("just"), local=True, recurse=True, skip_refresh=True, source=_SOURCE, words=("just",))]


@hookimpl
def termite_build(
    tool: str, args: Sequence[str], cwd: str, env: Mapping[str, str], preload: Mapping[str, str]
) -> Command | None:
    """Add the preload variables. The tool itself runs as it is."""
    if tool not in TOOLS:
        return None
    added = dict(preload)
    if tool == "scons":
        added["TERMITE_PRELOAD_TOOLS"] = ":".join(filter(None, (env.get("TERMITE_PRELOAD_TOOLS"), INTERPRETERS)))
    return Command((tool, *args), tool, True, cwd, {**env, **added}, " ".join((tool, *args)))
