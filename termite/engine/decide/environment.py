"""The environment of a command, and the part of it that a worker gets."""

import functools
import os
import re
from collections.abc import Collection, Iterator, Mapping
from hashlib import blake2b

from termite.engine.decide.logic.command_mask import hidden_values, matches
from termite.engine.decide.logic.commands import without_definitions, without_jobserver
from termite.engine.decide.logic.switches import ignored_settings
from termite.engine.decide.logic.ties import tie_of
from termite.engine.errors import Reason
from termite.engine.model import Command, Invocation

# Set by the shell and the terminal in which a build was started, so that they differ between
# builds.
_VOLATILE = frozenset({"_", "SHLVL", "OLDPWD", "MAKE_TERMOUT", "MAKE_TERMERR"})

# Variables of termite, besides the names that begin with TERMITE_.
_OURS = frozenset({"TERMITE", "MAKE_SHELL"})

_OF_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "GNUMAKEFLAGS", "CARGO_MAKEFLAGS")


class Environment(Mapping[str, str]):
    """The environment of a command, with the values derived from it.

    Most commands of a build have the same environment. They share one object, so that each derived
    value is computed once. `is_shown`: jobs have been shown the tools that this environment names.
    `private_place` is a directory that commands with this environment search and jobs must not see,
    or "".
    """

    is_shown = False
    private_place = ""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._without: dict[tuple[str, ...], Environment] = {}
        # By patterns: what a command must not say, and whether another variable says it.
        self._revealed: dict[tuple[str, ...], tuple[re.Pattern[str], bool]] = {}
        self._hidden: dict[tuple[str, ...], list[str]] = {}

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
    def warning(self) -> str:
        """The warning for the user if variables of termite have no meaning, else ""."""
        return ignored_settings(self._variables)

    @functools.cached_property
    def remote_words(self) -> tuple[bytes, ...]:
        """The variables of `remote` as `NAME=TEXT`, in the form in which they are sent."""
        return tuple(os.fsencode(f"{name}={text}") for name, text in self.remote.items())

    def without(self, patterns: tuple[str, ...]) -> "Environment":
        """Return the environment without the variables whose names match a shell pattern.

        The variables of make that repeat the definitions of its command line lose these, too.
        """
        if not patterns:
            return self
        found = self._without.get(patterns)
        if found is None:
            kept = {name: text for name, text in self._variables.items() if not matches(name, patterns)}
            for name in _OF_MAKE:
                if name in kept:
                    kept[name] = without_definitions(kept[name], lambda defined: matches(defined, patterns))
            found = self._without[patterns] = Environment(kept)
        return found

    def hidden(self, patterns: tuple[str, ...]) -> list[str]:
        """Return the values that no record may have: those of variables that match a pattern."""
        if not patterns:
            return []
        found = self._hidden.get(patterns)
        if found is None:
            found = self._hidden[patterns] = hidden_values(self._variables, patterns)
        return found

    def reveals_missing(self, words: Collection[str], patterns: tuple[str, ...]) -> bool:
        """Return True if a worker would get the value of a variable that matches a pattern.

        This is so if one of `words` names such a variable of this environment, or if a word or
        another variable contains its value.
        """
        missing = self._variables.keys() - self.without(patterns).keys()
        if not missing:
            return False
        if patterns not in self._revealed:
            others = "\0".join(self.without(patterns).remote.values())
            values = hidden_values(self._variables, patterns)
            named = "|".join(map(re.escape, missing))
            pattern = rf"(?<![A-Za-z0-9_])(?:{named})(?![A-Za-z0-9_])|{'|'.join(map(re.escape, values)) or '(?!)'}"
            self._revealed[patterns] = re.compile(pattern), any(value in others for value in values)
        revealed, is_in_another = self._revealed[patterns]
        return is_in_another or any(revealed.search(word) for word in words)

    @functools.cached_property
    def tie(self) -> Reason | None:
        """The reason that ties a command with this environment to the master's machine, or None."""
        return tie_of(self._variables)

    @functools.cached_property
    def digest(self) -> bytes:
        """A digest of `remote`, which does not change with the shell or the terminal of a build."""
        words = (f"{name}={text}" for name, text in self.remote.items() if name not in _VOLATILE)
        return blake2b(os.fsencode("\0".join(words)), digest_size=16).digest()


def environment_of(command: Command | Invocation) -> Environment:
    """Return the environment of a command as an `Environment`; share the object if it is one."""
    return command.env if isinstance(command.env, Environment) else Environment(command.env)


def encoded_words(words: tuple[str, ...]) -> tuple[bytes, ...]:
    """Encode the words of a command all at once: one call for each takes three times as long."""
    encoded = tuple(os.fsencode("\0".join(words)).split(b"\0"))
    # No command has a NUL in a word, but a plugin may say so: Run refuses it.
    return encoded if len(encoded) == len(words) else tuple(map(os.fsencode, words))
