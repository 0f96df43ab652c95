"""Who must act on an error. `except Exception` says around which job, request, launcher, peer or plugin it stands."""

import contextlib
from collections.abc import Iterator
from errno import errorcode


class TermiteError(Exception):
    """Base of the errors that have an addressee."""


class UserError(TermiteError):
    """The user must act: shown as one line and a hint, never as a traceback."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class Retryable(TermiteError):
    """The scheduler must act: the same job may succeed on another lease, or here."""


class Outdated(Retryable):
    """A file changed before the job had read it: no worker is to blame, and the same one may try again."""


class ConnectionLost(Retryable):
    """The other side of a connection went away, or stopped answering."""


class RemoteBug(Retryable):
    """An unexpected exception on the other side, which has its traceback; the text is its last line."""


class RemoteProtocolError(TermiteError):
    """The other side said something it must not say: its connection is dropped."""


class FsError(TermiteError):
    """A system call of a job must fail with `errno`, as it would at home."""

    def __init__(self, errno: int, path: bytes = b"") -> None:
        super().__init__(errno, path)
        self.errno = errno
        self.path = path

    def __str__(self) -> str:
        return errorcode.get(self.errno, str(self.errno))


class Stale(TermiteError):
    """A version of a file that was asked for is gone: the file has changed since."""


@contextlib.contextmanager
def first_error() -> Iterator[None]:
    """Around a nursery whose tasks fail for one reason: the first error comes out as itself, not in a group."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from error.__cause__
