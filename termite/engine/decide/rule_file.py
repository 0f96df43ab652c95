"""Read `.termite-localrc` again whenever it has changed on disk.

A bad file does not stop a build that runs: the rules that were in force before stay in force. They
also stay if the disk does not say what is in the file; the next job looks again. If there were none
before, no build starts: a command that must not run elsewhere would be sent to a worker.
"""

import logging
import os
import stat
from pathlib import Path

from termite.engine import look_calls
from termite.engine.decide.logic.rules import FILE_NAME, RuleBook
from termite.engine.errors import Reason, UserError
from termite.engine.look_errors import GONE

MOST_BYTES = 1024 * 1024  # the largest useful file has some hundred rules

log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int] | None


class RuleFile:
    """The user's file of rules in a directory, which keeps a RuleBook up to date.

    The absence of the file is a good version of it.
    """

    def __init__(self, directory: Path, book: RuleBook) -> None:
        self._path = directory / FILE_NAME
        self._name = str(self._path)
        self._book = book
        self._seen: _Stamp = None
        self._refused: UserError | None = None  # the error in the present file
        self._unseen: UserError | None = None  # the error of the newest look
        self._is_known = False  # True if a good version was read

    @property
    def error(self) -> UserError | None:
        """The reason for which the present file is not in force."""
        return self._unseen or self._refused

    @property
    def remark(self) -> str:
        """The words for people about `error` and the rules in force; "" without an error."""
        return self.remark_on(self.error) if self.error else ""

    def remark_on(self, error: UserError) -> str:
        """Return what to tell people of an error that `refresh` has returned."""
        return f"{error}; {'the last good rules stay in force' if self._is_known else 'none of its rules is in force'}"

    def require(self) -> None:
        """Read the file if it has changed. Raise UserError if no good version was ever read."""
        self.refresh()
        if self.error and not self._is_known:
            message, hint = self.error.message, self.error.hint
            mend = f"mend or remove {self._path}: a build needs rules that can be read"
            raise UserError(message, hint=f"{hint}; {mend}" if hint else mend, reason=Reason.BAD_RULES)

    def refresh(self) -> UserError | None:
        """Read the file if it has changed since the last call.

        Return the error of a bad file, once for each bad version, so that the user is notified
        once. An error of the disk is returned once, too, until a look succeeds. Return None if the
        file is good, missing or unchanged. The call stats the file and may read it.
        """
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                self._unseen = None
                self._is_known |= self._refused is None
                return None
            text = self._read() if stamp else None
        except OSError as error:
            return self._note_unseen(error)
        except UserError as error:
            self._note_refused(error)
        else:
            self._refused = None
            try:
                self._book.replace(text)
            except UserError as error:
                self._note_refused(error)
            else:
                self._is_known = True
        self._seen, self._unseen = stamp, None
        return self._refused

    def _note_refused(self, error: UserError) -> None:
        self._log(error)
        self._refused = error

    def _note_unseen(self, error: OSError) -> UserError | None:
        if self._unseen is not None:
            return None
        self._unseen = UserError(f"{FILE_NAME}: cannot be read: {error.strerror}")
        self._log(self._unseen)
        return self._unseen

    def _log(self, error: UserError) -> None:
        if self._is_known:  # otherwise `require` says it to who starts something
            log.warning("rules-rejected reason=%s", error)

    def _stamp(self) -> _Stamp:
        try:
            status = look_calls.stat(self._name)  # called for every job; pathlib would be slower
        except OSError as error:
            if error.errno not in GONE:
                raise
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> str:
        try:
            # To open a FIFO must not block the master until somebody writes to it.
            with open(look_calls.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                status = look_calls.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
                    what = "a file of more than 1 MiB" if stat.S_ISREG(status.st_mode) else "not a regular file"
                    raise UserError(
                        f"{FILE_NAME}: {what}",
                        hint="write an array of objects, see docs/use/reference.md, 'Rules'",
                    )
                return file.read(MOST_BYTES).decode()
        except UnicodeDecodeError as error:
            raise UserError(f"{FILE_NAME}: cannot be read: {error}", hint="it must be UTF-8 text") from None
