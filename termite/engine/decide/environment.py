"""The environment of a command, and what of it a worker gets to see."""

import functools
import os
from collections.abc import Iterator, Mapping
from hashlib import blake2b

from termite.engine.decide.logic.commands import without_jobserver
from termite.engine.decide.logic.ties import tie_of
from termite.engine.errors import Reason
from termite.engine.model import Command

# Of the shell and the terminal that a build was typed into: the next build's are others.
_PASSING = frozenset({"_", "SHLVL", "OLDPWD", "MAKE_TERMOUT", "MAKE_TERMERR"})


class Environment(Mapping[str, str]):
    """Of a command. Most commands of a build have the very same one, so what follows from it is kept with it."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def __getitem__(self, name: str) -> str:
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    @functools.cached_property
    def remote(self) -> Mapping[str, str]:
        """What a job may see on a worker: all but what leads to file descriptors and sockets of this machine."""
        remote = {
            name: text
            for name, text in self._variables.items()
            if not name.startswith("TERMITE_") and name != "MAKE_SHELL"
        }
        for name in ("MAKEFLAGS", "MFLAGS", "CARGO_MAKEFLAGS"):
            if name in remote:
                remote[name] = without_jobserver(remote[name])
        return remote

    @functools.cached_property
    def remote_words(self) -> tuple[bytes, ...]:
        """The same as `NAME=TEXT`, as it is sent."""
        return tuple(os.fsencode(f"{name}={text}") for name, text in self.remote.items())

    @functools.cached_property
    def tie(self) -> Reason | None:
        """To what of this machine a command is tied that has this environment; None: to nothing."""
        return tie_of(self._variables)

    @functools.cached_property
    def digest(self) -> bytes:
        """Of `remote`, without what another shell or terminal would have made of it."""
        words = (f"{name}={text}" for name, text in self.remote.items() if name not in _PASSING)
        return blake2b(os.fsencode("\0".join(words)), digest_size=16).digest()


def environment_of(command: Command) -> Environment:
    """The command's, with what is known of it."""
    return command.env if isinstance(command.env, Environment) else Environment(command.env)
