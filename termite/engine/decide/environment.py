"""The environment of a command, and the part of it that a worker gets."""

import functools
import os
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from hashlib import blake2b

from termite.engine.decide.logic.commands import without_jobserver
from termite.engine.decide.logic.ties import tie_of
from termite.engine.errors import Reason
from termite.engine.model import Command

# Set by the shell and the terminal in which a build was started, so that they differ between
# builds.
_VOLATILE = frozenset({"_", "SHLVL", "OLDPWD", "MAKE_TERMOUT", "MAKE_TERMERR"})

# Of termite, besides the names that begin with TERMITE_.
_OURS = frozenset({"TERMITE", "MAKE_SHELL"})


class Environment(Mapping[str, str]):
    """The environment of a command, with the values derived from it.

    Most commands of a build have the same environment. They share one object, so that each derived
    value is computed once.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._without: dict[tuple[str, ...], Environment] = {}

    def __getitem__(self, name: str) -> str:
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    @functools.cached_property
    def remote(self) -> Mapping[str, str]:
        """The variables that a job gets on a worker.

        termite's own variables and the jobserver are missing, because they name descriptors and
        sockets of the master's machine.
        """
        remote = {
            name: text
            for name, text in self._variables.items()
            if not name.startswith("TERMITE_") and name not in _OURS
        }
        for name in ("MAKEFLAGS", "MFLAGS", "CARGO_MAKEFLAGS"):
            if name in remote:
                remote[name] = without_jobserver(remote[name])
        return remote

    @functools.cached_property
    def remote_words(self) -> tuple[bytes, ...]:
        """The variables of `remote` as `NAME=TEXT`, in the form in which they are sent."""
        return tuple(os.fsencode(f"{name}={text}") for name, text in self.remote.items())

    def without(self, patterns: tuple[str, ...]) -> "Environment":
        """Return the environment without the variables whose names match a shell pattern."""
        if not patterns:
            return self
        found = self._without.get(patterns)
        if found is None:
            kept = {
                name: text
                for name, text in self._variables.items()
                if not any(fnmatchcase(name, pattern) for pattern in patterns)
            }
            found = self._without[patterns] = Environment(kept)
        return found

    def names_missing(self, text: str, patterns: tuple[str, ...]) -> bool:
        """Return True if `text` names a variable of this environment that matches a pattern."""
        missing = self._variables.keys() - self.without(patterns)._variables.keys()
        return any(re.search(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", text) for name in missing)

    @functools.cached_property
    def tie(self) -> Reason | None:
        """The reason that ties a command with this environment to the master's machine, or None."""
        return tie_of(self._variables)

    @functools.cached_property
    def digest(self) -> bytes:
        """A digest of `remote`, which does not change with the shell or the terminal of a build."""
        words = (f"{name}={text}" for name, text in self.remote.items() if name not in _VOLATILE)
        return blake2b(os.fsencode("\0".join(words)), digest_size=16).digest()


def environment_of(command: Command) -> Environment:
    """Return the command's environment as an `Environment`; share the object if it is one."""
    return command.env if isinstance(command.env, Environment) else Environment(command.env)
