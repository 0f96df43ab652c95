"""Read `.termite-localrc` again whenever it has changed on disk.

A bad file never stops a build: the rules that were in force before stay in force.
"""

import logging
import os
import stat
from pathlib import Path

from termite.engine.decide.logic.rules import FILE_NAME, RuleBook
from termite.engine.errors import UserError

MOST_BYTES = 1024 * 1024  # the largest useful file has some hundred rules

log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int] | None


class RuleFile:
    """The user's file of rules in a directory, which keeps a RuleBook up to date."""

    def __init__(self, directory: Path, book: RuleBook) -> None:
        self._path = directory / FILE_NAME
        self._name = str(self._path)
        self._book = book
        self._seen: _Stamp = None
        self.error: UserError | None = None  # the reason for which the present file is not in force

    def refresh(self) -> UserError | None:
        """Read the file if it has changed since the last call.

        Return the error of a bad file, once for each bad version, so that the user is notified
        once. Return None if the file is good, missing or unchanged. The call stats the file and may
        read it.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return None
        self._seen = stamp
        self.error = None
        try:
            self._book.replace(self._read() if stamp else None)
        except UserError as error:
            log.warning("rules-rejected reason=%s", error)
            self.error = error
        return self.error

    def _stamp(self) -> _Stamp:
        try:
            status = os.stat(self._name)  # called for every job; pathlib would be slower
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> str:
        try:
            # To open a FIFO must not block the master until somebody writes to it.
            with open(os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
                    what = "a file of more than 1 MiB" if stat.S_ISREG(status.st_mode) else "not a regular file"
                    raise UserError(
                        f"{FILE_NAME}: {what}",
                        hint="write an array of objects, see docs/use/reference.md, 'Rules'",
                    )
                return file.read(MOST_BYTES).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{FILE_NAME}: cannot be read: {error}", hint="it must be UTF-8 text") from None
