"""Where termite keeps what is its user's own: logs and caches. Never in the tree, and also where there is no home."""

import os
from collections.abc import Mapping
from pathlib import Path
from zlib import crc32

from termite.engine.errors import UserError

CACHE = ("XDG_CACHE_HOME", ".cache")
STATE = ("XDG_STATE_HOME", ".local/state")


def own_directory(kind: tuple[str, str], env: Mapping[str, str] = os.environ) -> Path:
    """The first of `candidates` that is there, or can be made, and can be written."""
    for directory in candidates(kind, env):
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # In /var/tmp somebody else may have been faster.
            if directory.lstat().st_uid == os.geteuid() and os.access(directory, os.W_OK | os.X_OK):
                return directory
        except OSError:
            continue
    places = " nor ".join(str(directory) for directory in candidates(kind, env))
    raise UserError(f"neither {places} can be written", hint=f"set {kind[0]} to a directory of yours")


def candidates(kind: tuple[str, str], env: Mapping[str, str] = os.environ) -> list[Path]:
    """What the user says, else below the home; then a place that every machine has."""
    variable, below_home = kind
    named = Path(env.get(variable, ""))  # a relative one is to be ignored, says the XDG specification
    chosen = named if named.is_absolute() else home() / below_home
    return [chosen / "termite", Path(f"/var/tmp/termite-{os.geteuid()}") / below_home]


def tree_name(root: Path) -> str:
    """For a file's name: which tree it is about. The end of the path, and a checksum where that would be another
    tree's name as well (`/a/b-c` and `/a-b/c`)."""
    path = os.fsencode(root).strip(b"/")
    name = path.replace(b"/", b"-")[-150:] or b"root"
    if name.replace(b"-", b"/") != path:
        name += b".%08x" % crc32(path)  # hashlib would take a front end a millisecond to import
    return os.fsdecode(name)


def working_directory() -> Path:
    """Where the user is, without symlinks."""
    try:
        return Path(os.path.realpath(os.getcwd()))
    except FileNotFoundError:
        raise UserError("the current directory has been removed", hint="cd to one that is there") from None


def home() -> Path:
    """The user's; the root directory where there is none."""
    path = Path(os.path.expanduser("~"))
    return path if path.is_absolute() else Path("/")
