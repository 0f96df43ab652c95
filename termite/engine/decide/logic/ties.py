"""Whether a command is tied to a process of this machine, without which it would hang or give something else.

Such a command says so in its environment. Every front end imports this.
"""

from collections.abc import Mapping

from termite.engine.errors import Reason

_PRELOAD = "LD_PRELOAD"


# libfakeroot waits for ever for `faked`, which runs on this machine only. libpseudo would start a server of its own,
# which knows no owner of any file. The "/" of libfakechroot is a directory of this machine.
_OF_VARIABLE = {"FAKEROOTKEY": Reason.BELOW_FAKEROOT, "FAKECHROOT": Reason.BELOW_FAKECHROOT}
# PSEUDO_* alone tie nothing: bitbake sets them for tasks that run without pseudo, too.
_OF_LIBRARY = {
    "libfakeroot": Reason.BELOW_FAKEROOT,
    "libpseudo": Reason.BELOW_PSEUDO,
    "libfakechroot": Reason.BELOW_FAKECHROOT,
}


def tie_of(env: Mapping[str, str]) -> Reason | None:
    """Return what a command with this environment is tied to; None: to nothing that is known to matter."""
    for variable, tie in _OF_VARIABLE.items():
        if env.get(variable):
            return tie
    for entry in env.get(_PRELOAD, "").replace(":", " ").split():
        name = entry.rpartition("/")[2]
        for library, tie in _OF_LIBRARY.items():
            if name.startswith(library):
                return tie
    return None


def tying_variables(env: Mapping[str, str]) -> dict[str, str]:
    """Return the part of an environment that `tie_of` looks at."""
    return {name: env[name] for name in (*_OF_VARIABLE, _PRELOAD) if name in env}
