"""Find termite's native programs, and build the command that enters a mirror's namespaces."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import termite
from termite.engine.errors import UserError

_PACKAGE = Path(termite.__file__).parent


def own_variables(*kept: str) -> dict[str, str]:
    """Return the variables with which a Python process finds termite, and of ours only `kept`."""
    package = str(_PACKAGE.parent)
    path = os.pathsep.join([package, os.environ["PYTHONPATH"]]) if os.environ.get("PYTHONPATH") else package
    return {**{name: os.environ[name] for name in kept if name in os.environ}, "PYTHONPATH": path, "LANG": "C.UTF-8"}


def native_program(name: str, env: Mapping[str, str] = os.environ) -> Path:
    """Return the absolute path of the native program or library `name`.

    If $TERMITE_NATIVE is set, only search that directory. Otherwise search beside the running
    Python, then in the package. Raise UserError if the program is not found.
    """
    inside = _PACKAGE / "native"
    places = [Path(env["TERMITE_NATIVE"])] if env.get("TERMITE_NATIVE") else [Path(sys.executable).parent, inside]
    for place in places:
        if os.path.isfile(place / name):
            return (place / name).absolute()
    searched = " and ".join(str(place) for place in places)
    raise UserError(f"{name} is not in {searched}", hint="run pip install . in a checkout of termite")


def enter_command(sandbox: Path, uid: int | None, *needed: Path, group: Path | None = None) -> list[str]:
    """Return the words that start a mirror process, to which the caller appends its own command.

    If `uid` is None, the mirror runs as the present user. Otherwise it runs as that user and group,
    and reaches the paths in `needed` even below a private home. It joins the control group whose
    cgroup.procs is `group`.
    """
    joined = [f"--group={group}"] if group else []
    if uid is None:
        return [str(sandbox), "enter", *joined, "--"]
    ours = {Path(sys.prefix), Path(sys.base_prefix), _PACKAGE, sandbox.parent, *needed}
    reach = [f"--reach={path}" for path in sorted(path.resolve() for path in ours)]
    return [str(sandbox), "enter", *joined, f"--uid={uid}", f"--gid={uid}", *reach, "--"]
