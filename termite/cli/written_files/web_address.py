"""The file in which `termite-ctl web` writes where it serves the pages of a tree, for front ends.

The file has one line: the id of that process, and the address with its token. After a kill the file
stays, and nobody believes it.
"""

import os
from contextlib import suppress
from pathlib import Path


def write_address(file: Path, url: str) -> None:
    """Write the address of this process for this user alone. Raise OSError if that fails."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.{os.getpid()}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as written:
        written.write(f"{os.getpid()} {url}\n")
    new.replace(file)


def read_address(file: Path) -> str:
    """Return the address, or "" if the process that has written it is gone."""
    pid, url = _read(file)
    with suppress(OSError, OverflowError):  # no such process, or one of another user
        if pid > 0:
            os.kill(pid, 0)
            return url
    return ""


def remove_address(file: Path) -> None:
    """Remove the address of this process, but never that of another one."""
    if _read(file)[0] == os.getpid():
        with suppress(OSError):  # the user has removed it
            file.unlink()


def _read(file: Path) -> tuple[int, str]:
    """Return the process and the address, or (0, "") if the file has none."""
    with suppress(OSError, ValueError):
        pid, _, url = file.read_text().strip().partition(" ")
        return int(pid), url
    return 0, ""
