"""termite: distributed builds for unmodified projects. The names in this module are for plugins.

cli/ holds the commands, engine/ the daemons, fuse/ the workers' mirrors, plugins/ the build tools.
A plugin imports this module and nothing below it; this module imports from engine/ only.
Do not touch: each name is loaded at its first use. `termite-make` and `termite-ctl` are below this
package too, and must start without the libraries that those names need.
"""

TYPE_CHECKING = False  # not typing's: every build would wait for that import
if TYPE_CHECKING:
    from termite.engine.decide.hookspecs import hookimpl
    from termite.engine.decide.known_tools import NOT_CALLED, KnownTool, ToolCall, Vouch, refuse_all
    from termite.engine.decide.logic.commands import plain_command
    from termite.engine.decide.logic.rules import command_regexp
    from termite.engine.model import Command, How, Invocation, Rule

__version__ = "0.1.0"  # pyproject.toml and CMakeLists.txt read it here

__all__ = [
    "NOT_CALLED",
    "Command",
    "How",
    "Invocation",
    "KnownTool",
    "Rule",
    "ToolCall",
    "Vouch",
    "command_regexp",
    "hookimpl",
    "plain_command",
    "refuse_all",
]

_KNOWN = "termite.engine.decide.known_tools"
_HOMES = {
    **dict.fromkeys(("NOT_CALLED", "KnownTool", "ToolCall", "Vouch", "refuse_all"), _KNOWN),
    "command_regexp": "termite.engine.decide.logic.rules",
    "hookimpl": "termite.engine.decide.hookspecs",
    "plain_command": "termite.engine.decide.logic.commands",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'termite' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES.get(name, "termite.engine.model")), name)
