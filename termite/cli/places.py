"""The directories in which termite keeps logs and caches of its user.

They are never in the tree, and they exist even for a user without a home directory.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from zlib import crc32

from termite.engine.errors import UserError
from termite.engine.host.ownership import find_stranger

ROOT_CACHE = Path("/var/cache/termite")  # of a root worker
CACHE = ("XDG_CACHE_HOME", ".cache")
STATE = ("XDG_STATE_HOME", ".local/state")


def own_directory(kind: tuple[str, str], env: Mapping[str, str] = os.environ) -> Path:
    """Return the first of `candidates` that this user can write and no other can exchange.

    It is made if needed. Raise UserError if there is none.
    """
    for directory in candidates(kind, env):
        try:
            if find_stranger(directory):
                continue
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # In /var/tmp another user may have made it first, and root may have somebody's $HOME.
            if find_stranger(directory) == "" and os.access(directory, os.W_OK | os.X_OK):
                return directory
        except OSError:
            continue  # the next candidate; the error below names all of them
    tried = "; ".join(
        f"{directory}: {find_stranger(directory) or 'it cannot be written'}" for directory in candidates(kind, env)
    )
    raise UserError(f"no directory is safe to use: {tried}", hint=f"set {kind[0]} to a directory of yours")


def default_cache() -> Path:
    """Return the directory in which a worker keeps files between jobs and between its runs."""
    return ROOT_CACHE if os.geteuid() == 0 else own_directory(CACHE)


def candidates(kind: tuple[str, str], env: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the directory of the XDG variable or below the home directory, and one in /var/tmp.

    `kind` is CACHE or STATE.
    """
    variable, below_home = kind
    named = Path(env.get(variable, ""))  # the XDG specification says to ignore a relative path
    chosen = named if named.is_absolute() else home() / below_home
    return [chosen / "termite", Path(f"/var/tmp/termite-{os.geteuid()}") / below_home]


def tree_name(root: Path) -> str:
    """Return a file name that stands for the tree at `root`: the end of its path.

    A checksum is added if another tree could have the same name (`/a/b-c` and `/a-b/c`).
    """
    path = os.fsencode(root).strip(b"/")
    name = path.replace(b"/", b"-")[-150:] or b"root"
    if name.replace(b"-", b"/") != path:
        name += b".%08x" % crc32(path)  # importing hashlib would cost a front end a millisecond
    return os.fsdecode(name)


def records_directory(root: Path) -> Path:
    """Return the directory with the records of the tree at `root`, which may not exist yet.

    Raise UserError if there is no place for it.
    """
    return own_directory(STATE) / "records" / tree_name(root)


def web_address_file(root: Path) -> Path:
    """Return the file that says where pages of the tree at `root` are served, if it exists.

    Raise UserError if there is no place for it.
    """
    return records_directory(root) / "web-address"


def working_directory() -> Path:
    """Return the current directory without symlinks. Raise UserError if it has been removed."""
    try:
        return Path(os.path.realpath(os.getcwd()))
    except FileNotFoundError:
        raise UserError("the current directory has been removed", hint="change to a directory that exists") from None


def home() -> Path:
    """Return the user's home directory, or the root directory if the user has none."""
    path = Path(os.path.expanduser("~"))
    return path if path.is_absolute() else Path("/")
