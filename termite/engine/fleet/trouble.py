"""Name the last thing that went wrong with a worker or the coordinator."""

from dataclasses import dataclass

from termite.engine.errors import Reason, Retryable, TermiteError, UserError


@dataclass(frozen=True, slots=True)
class Trouble:
    """The last thing that went wrong with a worker or the coordinator. `text` is for people."""

    reason: Reason
    text: str


def detail_of(error: TermiteError) -> str:
    """Return what an error says in addition to its reason, for people; "" if it says no more."""
    return error.detail if isinstance(error, Retryable) else str(error)


def trouble_of(error: Exception, text: str = "") -> Trouble:
    """Return the trouble that an error means. `text` is by default that of the error."""
    if isinstance(error, Retryable | UserError):
        reason = error.reason
    else:
        reason = Reason.BAD_ANSWER if isinstance(error, TermiteError) else Reason.INTERNAL_ERROR
    return Trouble(reason, text or str(error) or repr(error))
