"""Mask and bound what goes into a record, so that no record is large and none has a secret."""

from collections.abc import Iterable, Sequence

from termite.engine.decide.logic.command_mask import mask_text
from termite.engine.history.logic.job_record import FILES_BYTES, FILES_NAMED, OUTPUT_BYTES, TEXT_CHARACTERS

LINE_CHARACTERS = 4096  # of a directory, a rule or a detail
CUT = "..."  # stands at the end of a text that was cut


def recorded_text(text: str, hidden: Sequence[str] = ()) -> str:
    """Return a command's text without credentials, and cut to TEXT_CHARACTERS.

    `hidden` are the values of variables that must not leave this machine, as `mask_text` wants
    them. A byte that is no UTF-8 becomes an escape like \\xff.
    """
    masked = _encodable(mask_text(text, hidden))
    return masked if len(masked) <= TEXT_CHARACTERS else masked[:TEXT_CHARACTERS] + CUT


def recorded_output(tail: bytes, hidden: Sequence[str] = ()) -> bytes:
    """Return the last OUTPUT_BYTES of a job's output without credentials.

    Give more than OUTPUT_BYTES in `tail` if there is more: a credential at the cut is then found.
    """
    if not tail:
        return b""
    text = tail.decode("utf-8", "surrogateescape")
    return mask_text(text, hidden).encode("utf-8", "surrogateescape")[-OUTPUT_BYTES:]


def recorded_line(text: str) -> str:
    """Return a text that is no command, such as a directory or a detail: bounded and in UTF-8."""
    if text.isascii() and len(text) <= LINE_CHARACTERS:
        return text
    text = _encodable(text)
    return text if len(text) <= LINE_CHARACTERS else text[:LINE_CHARACTERS] + CUT


def recorded_names(paths: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the first paths, at most FILES_NAMED and FILES_BYTES in all."""
    named: list[bytes] = []
    room = FILES_BYTES
    for path in paths:
        room -= len(path)
        if room < 0 or len(named) == FILES_NAMED:
            break
        named.append(path)
    return tuple(named)


def _encodable(text: str) -> str:
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
