"""Decide by its environment whether a command is tied to the master's machine.

A tied command needs a process or a directory of that machine. On a worker it would hang, or have
other effects. Front ends import this module too.
"""

from collections.abc import Mapping

from termite.engine.errors import Reason

_PRELOAD = "LD_PRELOAD"


# libfakeroot waits for ever for `faked`, which only runs on the master's machine. libpseudo would
# start a server of its own, which knows no owner of any file. The "/" of libfakechroot is a
# directory of the master's machine. libfaketime has the time of all programs below one `faketime`
# in shared memory of that machine, and a semaphore that FAKETIME_SHARED names.
_OF_VARIABLE = {
    "FAKEROOTKEY": Reason.BELOW_FAKEROOT,
    "FAKECHROOT": Reason.BELOW_FAKECHROOT,
    "FAKETIME_SHARED": Reason.BELOW_FAKETIME,
}
# PSEUDO_* alone do not tie a command: bitbake also sets them for tasks that run without pseudo.
_OF_LIBRARY = {
    "libfakeroot": Reason.BELOW_FAKEROOT,
    "libpseudo": Reason.BELOW_PSEUDO,
    "libfakechroot": Reason.BELOW_FAKECHROOT,
}


def tie_of(env: Mapping[str, str]) -> Reason | None:
    """Return the reason that ties a command with this environment, or None if none is known."""
    for variable, tie in _OF_VARIABLE.items():
        if env.get(variable):
            return tie
    for entry in env.get(_PRELOAD, "").replace(":", " ").split():
        name = entry.rpartition("/")[2]
        for library, tie in _OF_LIBRARY.items():
            if name.startswith(library):
                return tie
    return None
