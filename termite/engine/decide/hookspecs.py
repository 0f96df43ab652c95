"""The hooks of a plugin. This file is the manual.

A plugin is a module that the entry point group `termite` names. It imports `termite` and nothing
below it:

    from termite import Rule, hookimpl

    @hookimpl
    def termite_rules():
        return [Rule(r"^protoc ", local=True, source="my plugin")]

Hooks are plain functions that the master calls in its event loop. They do no I/O and take well
under a millisecond. An implementation gets the arguments that it names, and no others. `None` means
"not mine". A plugin claims an invocation only by a mark of its own tool, so that the order of
plugins never matters. If a hook raises an exception, the master logs it and uses the other plugins.
"""

from collections.abc import Mapping, Sequence

import pluggy

from termite.engine.decide.known_tools import KnownTool
from termite.engine.model import Command, Invocation, Rule

hookspec = pluggy.HookspecMarker("termite")
hookimpl = pluggy.HookimplMarker("termite")


@hookspec(firstresult=True)
def termite_parse(invocation: Invocation) -> Command | None:
    """Return the command that should run for an invocation, or None if it is not yours.

    If no plugin claims the invocation, it runs as it is (`termite.plain_command`). Set `text` if
    rules should match another text than the words of the command.
    """


@hookspec
def termite_rules() -> Sequence[Rule]:  # type: ignore[empty-body]  # a specification has no body
    """Return rules, which the master tries after the user's own.

    The master calls this once, when it starts. Put the name of the plugin in each rule's `source`.
    """


@hookspec(firstresult=True)
def termite_build(
    tool: str, args: Sequence[str], cwd: str, env: Mapping[str, str], preload: Mapping[str, str], other_cwd: str
) -> Command | None:
    """Return the command that starts a build tool so that its jobs reach the launcher.

    `termite-build TOOL` calls this. Return None if the tool is not yours. `tool` is the tool's name
    ("make"), `args` are the user's arguments, and `env` is the user's environment. `preload` has
    the variables with which every command of a make or ninja reaches the launcher. TERMITE_LAUNCHER
    in it is the launcher's path, for tools that can put a program in front of their commands.
    `other_cwd` is another name of the directory `cwd`, which does not begin with the path of the
    tree. Jobs see it, and what they write there comes back.
    """


@hookspec
def termite_exports(env: Mapping[str, str]) -> Sequence[str]:  # type: ignore[empty-body]  # a specification has no body
    """Return paths that jobs may read although other users of the master's machine may not.

    An example is a toolchain below a private home. The master calls this when it starts, with its
    own environment, and for each new environment of a command. Return as few paths as possible, and
    never a directory that holds credentials. A path may be missing at first: jobs see it as soon as
    it appears. A home directory is not exported, whoever names it, and neither are files below the
    path that have the names of credentials (visibility.py).
    """


@hookspec
def termite_droppable(env: Mapping[str, str]) -> Sequence[str]:  # type: ignore[empty-body]  # a specification has no body
    """Return places outside the tree whose files no build needs, such as the cache of a program.

    A command that writes outside the tree runs on the master's machine. If it writes to such places
    only, it stays on a worker, and what it has written there is dropped and counted. `env` is the
    environment of the command. A place with a slash is an absolute path, and stands for everything
    below it. One without is a name, as `__pycache__` or `hsperfdata_*`, of a file or a directory
    anywhere outside the tree: `*` stands for any characters, `?` for one. Other places are ignored,
    and so are those at or above the tree.
    """


@hookspec
def termite_known_tools() -> Sequence[KnownTool]:  # type: ignore[empty-body]  # a specification has no body
    """Return tools whose results may be used again after one execution.

    The results of all other commands have to prove first that they repeat themselves. The master
    calls this once, when it starts. `known_tools.py` beside this file describes an entry. Its
    function `judge` is pure, and is called for each result that is stored. If two entries know the
    same name, neither is used for it.
    """
