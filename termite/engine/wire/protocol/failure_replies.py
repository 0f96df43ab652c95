"""Turn exceptions of a request's handler into replies, and such replies into exceptions again.

Details come from another process, so they are made printable in both directions.
"""

import enum
from errno import EIO

from termite.engine.errors import FsError, Reason, RemoteBug, Retryable, Stale, UserError
from termite.engine.model import Errno
from termite.engine.wire.protocol.foreign_text import printable
from termite.engine.wire.protocol.message_base import Message


class Failure(enum.Enum):
    """The kind of a failure, which decides which exception the requesting side raises."""

    FS = "fs"  # FsError: the job's system call fails with errno
    STALE = "stale"  # Stale: that version is gone
    RETRYABLE = "retryable"  # Retryable: try another worker
    REFUSED = "refused"  # UserError: a person must act; `detail` is the line to show
    BUG = "bug"  # RemoteBug: the other side had an unexpected exception; `detail` is its last line


class Failed(Message, frozen=True):
    """The reply to a request that failed.

    `errno` is set for FS, `reason` for RETRYABLE and REFUSED. `detail` is for people.
    """

    kind: Failure
    detail: str
    errno: Errno = 0
    reason: Reason = Reason.NEEDS_A_PERSON


def result_of(reply: Message) -> Message:
    """Return a reply, or raise the exception that it stands for.

    Raise FsError, Stale, Retryable, UserError or RemoteBug, as `Failure` says.
    """
    if not isinstance(reply, Failed):
        return reply
    detail = printable(reply.detail)
    match reply.kind:
        case Failure.FS:
            raise FsError(reply.errno or EIO)
        case Failure.STALE:
            raise Stale(detail)
        case Failure.REFUSED:
            raise UserError(detail, reason=reply.reason)
        case Failure.BUG:
            raise RemoteBug(detail)
        case Failure.RETRYABLE:
            raise Retryable(reply.reason, detail)


def failed(error: FsError | Stale | Retryable | UserError) -> Failed:
    """Return the reply from which `result_of` makes this exception on the other side."""
    match error:
        case FsError():
            return Failed(Failure.FS, str(error), error.errno)
        case Stale():
            return Failed(Failure.STALE, printable(error.detail))
        case Retryable():
            return Failed(Failure.RETRYABLE, printable(error.detail), reason=error.reason)
        case UserError():
            return Failed(Failure.REFUSED, printable(str(error)), reason=error.reason)
