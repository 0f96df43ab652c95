"""`.termite-localrc` on disk: read again when it changed. What is wrong is said once, to who builds next."""

import logging
import os
from pathlib import Path

from termite.engine.decide.logic.rules import FILE_NAME, RuleBook
from termite.engine.errors import UserError

log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int] | None


class RuleFile:
    """Keeps a RuleBook as the file in `directory` says."""

    def __init__(self, directory: Path, book: RuleBook) -> None:
        self._path = directory / FILE_NAME
        self._name = str(self._path)
        self._book = book
        self._seen: _Stamp = None
        self.error: UserError | None = None  # what is wrong with it now

    def refresh(self) -> UserError | None:
        """Read it if it is another one than before. The error, once for every change that is bad."""
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
            status = os.stat(self._name)  # for every job: without pathlib's part
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> str:
        try:
            if not self._path.is_file():  # a FIFO would hold the master until somebody writes into it
                raise UserError(f"{FILE_NAME}: is no file", hint="an array of objects, see README, 'Rules'")
            return self._path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{FILE_NAME}: cannot be read: {error}", hint="it must be UTF-8 text") from None
