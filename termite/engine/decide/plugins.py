"""The plugins as the master asks them. One that breaks costs a line in the log; the others and the build live on."""

import importlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

import pluggy

from termite.engine.decide import hookspecs
from termite.engine.decide.logic.commands import plain_command
from termite.engine.model import Command, Invocation, Rule

GROUP = "termite"
HOOKS = ("termite_parse", "termite_rules", "termite_build", "termite_exports")
_OF_ALL = ("termite_rules", "termite_exports")  # everybody's answer counts

_Call = Callable[[Mapping[str, object]], Any]

log = logging.getLogger(__name__)


class Plugins:
    """The loaded plugins. `broken` says which failed, and why."""

    def __init__(self, built_in: Iterable[str] = (), found: Iterable[tuple[str, str]] = ()) -> None:
        """`built_in`: names of modules; `found`: names and modules of installed ones."""
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
            except Exception as error:  # one plugin: the others are asked
                self._break(name, error)
        for name in self.broken:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
        self._calls = {hook: self._calls_of(hook) for hook in HOOKS}

    def rules(self) -> tuple[Rule, ...]:
        """The rules of all plugins, by name of plugin."""
        return tuple(rule for _, rules in self._ask("termite_rules") for rule in rules)

    def exports(self, env: Mapping[str, str]) -> tuple[str, ...]:
        """What jobs may read besides what everybody may, by name of plugin."""
        return tuple(path for _, paths in self._ask("termite_exports", env=env) for path in paths)

    def parse(self, invocation: Invocation) -> Command:
        """The command that an invocation means."""
        _, command = self.read(invocation)
        return command

    def read(self, invocation: Invocation) -> tuple[str, Command]:
        """The same, after the name of the plugin that says so; empty: nobody claims it, it is taken as it stands."""
        claimed: Command
        for name, claimed in self._ask("termite_parse", invocation=invocation):
            return name, claimed
        return "", plain_command(invocation)

    def build(
        self, tool: str, args: Sequence[str], cwd: str, env: Mapping[str, str], preload: Mapping[str, str]
    ) -> Command | None:
        """How to start a build tool, None where no plugin knows it."""
        command: Command
        for _, command in self._ask("termite_build", tool=tool, args=args, cwd=cwd, env=env, preload=preload):
            return command
        return None

    def _calls_of(self, hook: str) -> list[tuple[str, _Call]]:
        # Each plugin is called by itself: pluggy would let one that raises silence those after it.
        plugins = sorted(self._manager.list_name_plugin())
        having = [(name, plugin) for name, plugin in plugins if hasattr(plugin, hook)]
        everyone = self._manager.get_plugins()
        callers = [(name, self._manager.subset_hook_caller(hook, everyone - {plugin})) for name, plugin in having]
        return [(name, _call_of(caller, hook)) for name, caller in callers if caller.get_hookimpls()]

    def _ask(self, hook: str, **arguments: object) -> Iterator[tuple[str, Any]]:
        for name, call in self._calls[hook]:
            try:
                answer = call(arguments)
            except Exception as error:  # one plugin, which is not asked again
                self._break(name, error)
                continue
            if answer is not None and answer != []:
                yield name, answer

    def _break(self, name: str, error: Exception) -> None:
        """A plugin is not ours: whatever it raises, the others and the build live."""
        if name not in self.broken:
            log.warning("plugin-failed plugin=%s reason=%r", name, error)
        self.broken[name] = repr(error)


def _call_of(caller: pluggy.HookCaller, hook: str) -> _Call:
    """Calls the one plugin that `caller` has: its function, since pluggy's way to it costs more than most of them do.
    A plugin's wrapper is called by pluggy.
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
    """The built-in ones and every one that is installed."""
    return Plugins(built_in, [(entry.name, entry.value) for entry in entry_points(group=GROUP)])
