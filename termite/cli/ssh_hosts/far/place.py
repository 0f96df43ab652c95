"""The directory of a worker that was added over ssh, and the answers to the other side.

Everything is in one directory below the user's home, so that nothing is left when it is removed.
Only the unit of a worker that is a service lies where systemd looks for it (user_services.py).
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FarMessage = dict[str, Any]

MARK = "termite-far-side "  # begins each line of an answer: start files of shells print other lines
DIRECTORY = ".termite-worker"
STEP_S = 0.05  # between two looks at a lock


class FarRefusal(Exception):
    """An error for the user, with a hint. A claim that is refused has changed nothing."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.text, self.hint = text, hint


class WorkerPlace:
    """The directory of the worker on this host."""

    def __init__(self) -> None:
        self.home = Path(os.path.expanduser("~"))
        self.top = self.home / DIRECTORY
        self.bundles, self.secret = self.top / "bundles", self.top / "secret.txt"
        self.said, self.log = self.top / "start.log", self.top / "worker.log"
        self.settings = self.top / "settings.json"

    def make(self) -> None:
        """Make the directory. Raise FarRefusal if that fails or another user may have made it."""
        try:
            self.top.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, exist_ok=True)
        except OSError as error:
            raise FarRefusal(f"{self.top} cannot be made: {error.strerror}", f"see ls -ld {self.top}") from error
        status = self.top.lstat()
        if self.top.is_symlink() or not self.top.is_dir() or status.st_uid != os.geteuid():
            raise FarRefusal(f"{self.top} is no directory of this user", f"remove it there: rm {self.top}")

    def read(self) -> FarMessage:
        """Return the settings of the worker, or none if there is no worker."""
        try:
            found = json.loads(self.settings.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, settings: FarMessage) -> None:
        """Replace the settings."""
        new = self.settings.with_suffix(".new")
        new.write_text(json.dumps(settings))
        new.replace(self.settings)

    def program(self, digest: str, name: str) -> Path:
        """Return a program of a bundle. Raise FarRefusal if the bundle is not here."""
        found = sorted((self.bundles / digest).glob(f"*/bin/{name}"))
        if not found:
            raise FarRefusal(f"the bundle has no {name}", "give a bundle that `make dist` has built")
        return found[0]


def surroundings(place: WorkerPlace) -> dict[str, str]:
    """Return the environment of termite's programs, whose files all lie in the one directory."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SSH_", "NOTIFY_", "XDG_"))}
    return {**kept, "XDG_STATE_HOME": str(place.top / "state"), "XDG_CACHE_HOME": str(place.top / "cache")}


@contextlib.contextmanager
def locked(place: WorkerPlace, patience_s: float) -> Iterator[None]:
    """Let one change of the worker go on at a time.

    Raise FarRefusal if another one still does after `patience_s`.
    """
    place.make()
    fd = os.open(place.top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        deadline_s = time.monotonic() + patience_s
        while not _got_lock(fd):
            if time.monotonic() >= deadline_s:
                raise FarRefusal("another termite-ctl changes the worker there now", "try again when it has ended")
            time.sleep(STEP_S)
        yield
    finally:
        os.close(fd)


def _got_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def send_line(message: FarMessage) -> None:
    """Print an answer. If nobody reads it, the connection has ended: this raises OSError."""
    print(MARK + json.dumps(message), flush=True)
