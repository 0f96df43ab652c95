"""The Meson plugin: ninja's commands are distributed; commands that control the build are local.

Local are setting up and regenerating, the checks of a set-up with CC="termite gcc", installing and
testing. `meson compile` is local too, but its commands are distributed. The commands that meson
wraps (`--internal exe`) and its other helpers are remote.
"""

from collections.abc import Mapping, Sequence

from termite import Command, Rule, command_regexp, hookimpl

MESON = rf"(?:{command_regexp('meson(?:[.]py)?')}|{command_regexp('python[0-9.]*')}\s++\S*\bmeson(?:[.]py)?)\s++"
_SOURCE = "meson plugin"
_WORDS = ("meson",)


@hookimpl
def termite_rules() -> list[Rule]:
    """Return the rules that keep the commands local that the module's docstring lists."""
    return [
        Rule(MESON + r"compile\b", local=True, recurse=True, skip_refresh=True, source=_SOURCE, words=_WORDS),
        Rule(MESON + r"(?!--internal\s+(?!regenerate\b))", local=True, source=_SOURCE, words=_WORDS),
        Rule(r"/meson-private/(?:tmp|sanitycheck)", local=True, source=_SOURCE, words=_WORDS),
    ]


@hookimpl
def termite_build(
    tool: str, args: Sequence[str], cwd: str, env: Mapping[str, str], preload: Mapping[str, str]
) -> Command | None:
    """Add the preload variables, which Meson passes on to the ninja that it starts."""
    if tool != "meson":
        return None
    return Command((tool, *args), tool, True, cwd, {**env, **preload}, " ".join((tool, *args)))


@hookimpl
def termite_exports(env: Mapping[str, str]) -> list[str]:
    """Export ~/.local/bin and ~/.local/lib: the Meson that set the build up may be there."""
    home = env.get("HOME", "")
    return [f"{home}/.local/{name}" for name in ("bin", "lib")] if home else []
