"""Show jobs the tools that commands would find by their environment on the master's machine.

Commands of one build may have different environments, and the master may have been started with
another one. Therefore the environment of each command counts, and each new one is examined once.
"""

import os
import pwd

from termite.engine.decide.command_memory import CommandKey, key_of
from termite.engine.decide.environment import Environment
from termite.engine.decide.loaded_plugins import Plugins
from termite.engine.errors import Reason, Retryable
from termite.engine.model import Command
from termite.engine.tree.master_tree import MasterTree
from termite.engine.tree.tools.named_places import (
    named_files,
    searched_places,
    temporary_of_one_machine,
    too_wide_place,
)
from termite.engine.tree.tools.settings_files import settings_files
from termite.engine.tree.tools.tool_homes import ToolPlace, environments, is_too_wide

MAX_KEYS = 10_000  # of remembered commands; about 150 bytes each
MAX_HOMES = 100  # of all environments; the files with settings of each are 75 names that stay shown
MAX_DIRECTORIES = 1000  # of all search paths; a build that makes more is no ordinary one


class UnseenPrograms:
    """The commands that have tried a program which jobs may not see, and that program.

    They are not sent to a worker again. An environment with another PATH makes another command.
    """

    def __init__(self) -> None:
        self._programs: dict[CommandKey, str] = {}

    def add(self, key: CommandKey, program: str) -> None:
        """Remember a command and the path of the program."""
        if len(self._programs) >= MAX_KEYS:
            del self._programs[next(iter(self._programs))]
        self._programs[key] = program

    def program_of(self, command: Command) -> str:
        """Return the program that a remembered command tries, or "" if it is not remembered."""
        return self._programs.get(key_of(command), "") if self._programs else ""


class ToolPlaces:
    """The tools and the program directories that jobs of one master have been shown."""

    def __init__(self, tree: MasterTree, plugins: Plugins) -> None:
        self._tree = tree
        self._plugins = plugins
        self._directories: set[str] = set()
        self._tools: set[ToolPlace] = set()
        self._homes: set[tuple[str, str]] = set()
        self._home = _home_of_user()

    def show_for(self, environment: Environment) -> None:
        """Show what commands with this environment need, unless that was done before.

        Each new environment and each new directory of PATH is looked at once. If the environment
        needs more than jobs may see, its `private_place` is set. Raise Retryable if a look fails:
        nothing counts as shown then, and the next call looks again.
        """
        if environment.is_shown:
            return
        homes_before = set(self._homes)
        try:
            self._show(environment)
        except OSError as error:
            self._homes = homes_before
            raise Retryable(Reason.LOOK_FAILED, f"{error.filename!r}: {error.strerror}") from error
        environment.is_shown = True

    def _show(self, environment: Environment) -> None:
        homes = {self._home, environment.get("HOME", "/")}
        places = [*dict.fromkeys(searched_places(environment))]
        environment.private_place = too_wide_place(places, homes) or temporary_of_one_machine(environment)
        path = {place for place in environment.get("PATH", "").split(":") if place.startswith("/")}
        directories = path - self._directories
        searched = {*directories, *_of_active(environment)} - self._directories
        shown = (*self._plugins.exports(environment), *places)
        tools = {ToolPlace(os.fsencode(place), is_watched=True) for place in shown}
        tools = {tool for tool in tools if not is_too_wide(tool.path, homes)} - self._tools
        tools |= self._new_settings(environment)
        tools |= {ToolPlace(os.fsencode(p), False, is_sealed=True) for p in named_files(environment)} - self._tools
        if len(self._directories) >= MAX_DIRECTORIES or not (searched or tools):
            return
        tools |= set(environments(sorted(searched), homes)) - self._tools
        self._tree.show_tools(sorted(tools, key=lambda tool: tool.path), [os.fsencode(d) for d in sorted(directories)])
        self._directories |= searched
        self._tools |= tools

    def _new_settings(self, environment: Environment) -> set[ToolPlace]:
        """Return the files with settings in a home directory that was not shown before."""
        home = environment.get("HOME", ""), environment.get("XDG_CONFIG_HOME", "")
        if home in self._homes or len(self._homes) >= MAX_HOMES or len(self._directories) >= MAX_DIRECTORIES:
            return set()
        self._homes.add(home)
        settings = {ToolPlace(os.fsencode(path), False, is_sealed=True) for path in settings_files(environment)}
        return settings - self._tools


def _home_of_user() -> str:
    """Return the home directory of this process's user, whatever HOME says."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"


def _of_active(environment: Environment) -> set[str]:
    """Return the program directories of the environments that are active without being in PATH."""
    tops = (environment.get(name, "") for name in ("VIRTUAL_ENV", "CONDA_PREFIX"))
    return {f"{top}/bin" for top in tops if top.startswith("/")}
