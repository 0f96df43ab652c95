"""The hooks of a plugin: this file is the manual.

A plugin is a module named in the entry point group `termite`; it imports `termite` and nothing below it:

    from termite import Rule, hookimpl

    @hookimpl
    def termite_rules():
        return [Rule(r"^protoc ", local=True, source="my plugin")]

Hooks are plain functions that the master calls in its event loop: no I/O, well under a millisecond. An implementation
takes just the arguments it names. `None` means "not mine": a plugin claims only what carries its own mark, so that
order never matters.
"""

from collections.abc import Mapping, Sequence

import pluggy

from termite.engine.model import Command, Invocation, Rule

hookspec = pluggy.HookspecMarker("termite")
hookimpl = pluggy.HookimplMarker("termite")


@hookspec(firstresult=True)
def termite_parse(invocation: Invocation) -> Command | None:
    """What should run for what the build tool called.

    Without an answer it is the invocation itself (`termite.plain_command`). Change `text` to say better what rules are
    matched with.
    """


@hookspec
def termite_rules() -> Sequence[Rule]:  # type: ignore[empty-body]  # a specification has no body
    """Rules that stand after the user's own. Asked once, when the master starts. Name yourself in `source`."""


@hookspec(firstresult=True)
def termite_build(
    tool: str, args: Sequence[str], cwd: str, env: Mapping[str, str], preload: Mapping[str, str]
) -> Command | None:
    """How to start a build tool so that its jobs reach the launcher.

    `tool` is its name ("make"), `args` what the user gave it, `env` the user's environment. `preload` is what to add
    to it so that the commands of a make or ninja reach the launcher without more; TERMITE_LAUNCHER in it is the
    launcher, for tools that can put a program in front of their commands. `termite-build TOOL` asks this.
    """


@hookspec
def termite_exports(env: Mapping[str, str]) -> Sequence[str]:  # type: ignore[empty-body]  # a specification has no body
    """Paths that jobs may read though others on the master's machine may not, such as a toolchain below a private home.

    Asked once, when the master starts; `env` is its environment. Name as little as will do: never a directory that
    holds credentials. A path need not exist yet; what appears in it is seen at once.
    """
