"""Read `.termite-localrc` again whenever it has changed on disk.

A bad file never stops a build: the rules that were in force before stay in force.
"""

import logging
import os
from pathlib import Path

from termite.engine.decide.logic.rules import FILE_NAME, RuleBook
from termite.engine.errors import UserError

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
            if not self._path.is_file():  # reading a FIFO would block the master until somebody writes to it
                raise UserError(
                    f"{FILE_NAME}: not a regular file",
                    hint="write an array of objects, see docs/use/reference.md, 'Rules'",
                )
            return self._path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{FILE_NAME}: cannot be read: {error}", hint="it must be UTF-8 text") from None
