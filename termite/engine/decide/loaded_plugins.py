"""The loaded plugins, and the calls of their hooks.

A plugin may raise anything. The error is logged once, and neither the other plugins nor the build
fail.
"""

import importlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

import pluggy

from termite.engine.decide import hookspecs
from termite.engine.decide.known_tools import KnownTool
from termite.engine.decide.logic.command_mask import mask_text
from termite.engine.decide.logic.commands import plain_command
from termite.engine.model import Command, Invocation, Rule

GROUP = "termite"
# The answers of all plugins count for these, not the first one only.
_OF_ALL = ("termite_rules", "termite_exports", "termite_droppable", "termite_known_tools")
HOOKS = ("termite_parse", "termite_build", *_OF_ALL)

_Call = Callable[[Mapping[str, object]], Any]

log = logging.getLogger(__name__)


class Plugins:
    """The loaded plugins. `broken` has the error of each failed plugin, by the plugin's name."""

    def __init__(self, built_in: Iterable[str] = (), found: Iterable[tuple[str, str]] = ()) -> None:
        """Import and check the plugins; one that fails is logged and left out.

        `built_in` has the modules of the built-in plugins. `found` has the names and the modules of
        the installed ones.
        """
        self.broken: dict[str, str] = {}
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        modules = {module: module.rpartition(".")[2] for module in built_in}
        for name, module in found:
            modules.setdefault(module, name)
        for module, name in modules.items():
            try:
                self._manager.register(importlib.import_module(module), name)
                self._manager.check_pending()
            except Exception as error:  # the import of one plugin: the others are loaded
                self._break(name, error)
        for name in self.broken:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
        self._calls = {hook: self._calls_of(hook) for hook in HOOKS}

    def rules(self) -> tuple[Rule, ...]:
        """Return the rules of all plugins, in the order of the plugins' names."""
        return tuple(rule for _, rules in self._ask("termite_rules") for rule in rules)

    def exports(self, env: Mapping[str, str]) -> tuple[str, ...]:
        """Return the private paths that jobs may read, in the order of the plugins' names."""
        return tuple(path for _, paths in self._ask("termite_exports", env=env) for path in paths)

    def droppable(self, env: Mapping[str, str]) -> tuple[str, ...]:
        """Return the places outside the tree where a command with this environment may write.

        Its files there are dropped. The places are in the order of the plugins' names.
        """
        return tuple(place for _, places in self._ask("termite_droppable", env=env) for place in places)

    def known_tools(self) -> tuple[KnownTool, ...]:
        """Return the tools that plugins vouch for, in the order of the plugins' names."""
        return tuple(tool for _, tools in self._ask("termite_known_tools") for tool in tools)

    def parse(self, invocation: Invocation) -> Command:
        """Return the command that should run for an invocation."""
        _, command = self.parse_with_plugin(invocation)
        return command

    def parse_with_plugin(self, invocation: Invocation) -> tuple[str, Command]:
        """Return the name of the plugin that claims an invocation, and the command.

        The name is "" if no plugin claims the invocation, which then runs as it is.
        """
        claimed: Command
        for name, claimed in self._ask("termite_parse", invocation=invocation):
            return name, claimed
        return "", plain_command(invocation)

    def build(
        self,
        tool: str,
        args: Sequence[str],
        cwd: str,
        env: Mapping[str, str],
        preload: Mapping[str, str],
        other_cwd: str = "",
    ) -> Command | None:
        """Return the command that starts a build tool, or None if no plugin knows the tool.

        `other_cwd` is `cwd` if it is "".
        """
        command: Command
        facts = {"tool": tool, "args": args, "cwd": cwd, "env": env, "preload": preload}
        for _, command in self._ask("termite_build", **facts, other_cwd=other_cwd or cwd):
            return command
        return None

    def _calls_of(self, hook: str) -> list[tuple[str, _Call]]:
        # Each plugin is called on its own: in one call of pluggy, a plugin that raises would keep
        # the later ones from being called.
        plugins = sorted(self._manager.list_name_plugin())
        having = [(name, plugin) for name, plugin in plugins if hasattr(plugin, hook)]
        everyone = self._manager.get_plugins()
        callers = [(name, self._manager.subset_hook_caller(hook, everyone - {plugin})) for name, plugin in having]
        return [(name, _call_of(caller, hook)) for name, caller in callers if caller.get_hookimpls()]

    def _ask(self, hook: str, **arguments: object) -> Iterator[tuple[str, Any]]:
        for name, call in self._calls[hook]:
            try:
                answer = call(arguments)
            except Exception as error:  # the hook of one plugin: the others are called
                self._break(name, error)
                continue
            if answer is not None and answer != []:
                yield name, answer

    def _break(self, name: str, error: Exception) -> None:
        """Log the first error of a plugin, and keep its last one for `broken`.

        An error may have words of the command in its text.
        """
        shown = mask_text(repr(error), ())
        if name not in self.broken:
            log.warning("plugin-failed plugin=%s reason=%s", name, shown)
        self.broken[name] = shown


def _call_of(caller: pluggy.HookCaller, hook: str) -> _Call:
    """Return a function that calls the one plugin of `caller`.

    It calls the plugin's function directly, because a call through pluggy costs more than most
    hooks do. Only a wrapper is called through pluggy.
    """
    implementation = caller.get_hookimpls()[0]
    if not (implementation.hookwrapper or implementation.wrapper):
        function, names = implementation.function, implementation.argnames
        return lambda arguments: function(*[arguments[name] for name in names])

    def call(arguments: Mapping[str, object]) -> Any:
        answer = caller(**arguments)
        return answer[0] if hook in _OF_ALL and answer else answer

    return call


def load_plugins(built_in: Iterable[str]) -> Plugins:
    """Load the built-in plugins and all installed ones."""
    return Plugins(built_in, [(entry.name, entry.value) for entry in entry_points(group=GROUP)])
