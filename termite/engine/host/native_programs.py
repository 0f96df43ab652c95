"""Where termite's native programs are."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import termite
from termite.engine.errors import UserError

_PACKAGE = Path(termite.__file__).parent


def native_program(name: str, env: Mapping[str, str] = os.environ) -> Path:
    """The program (or library) `name`: in $TERMITE_NATIVE, beside the running Python, or in the package."""
    inside = _PACKAGE / "native"
    places = [Path(env["TERMITE_NATIVE"])] if env.get("TERMITE_NATIVE") else [Path(sys.executable).parent, inside]
    for place in places:
        if os.path.isfile(place / name):
            return (place / name).absolute()
    looked = " and ".join(str(place) for place in places)
    raise UserError(f"{name} is not in {looked}", hint="install termite whole: pip install . in its checkout")


def enter_command(sandbox: Path, uid: int | None, *needed: Path) -> list[str]:
    """How to start a mirror process as `uid`, up to its own words. It reaches `needed` even below a closed home."""
    if uid is None:
        return [str(sandbox), "enter", "--"]
    ours = {Path(sys.prefix), Path(sys.base_prefix), _PACKAGE, sandbox.parent, *needed}
    reach = [f"--reach={path}" for path in sorted(path.resolve() for path in ours)]
    return [str(sandbox), "enter", f"--uid={uid}", f"--gid={uid}", *reach, "--"]
