"""Text of another process or of a file's name, for a line of a log or of a terminal.

Such a text may have a newline and then a line that looks like one of ours, or an escape sequence
that the terminal obeys.
"""

import re

LONGEST = 500  # characters of one text: a line of a log, not a page

# Control characters, what ends a line or changes its direction, and bytes that are no text.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, longest: int = LONGEST) -> str:
    """Return the text with an escape like \\x1b for each character that is not to be seen.

    A text of more than `longest` characters is cut.
    """
    if text.isprintable() and len(text) <= longest:
        return text
    shown = text if len(text) <= longest else text[:longest] + "..."
    return _UNSEEN.sub(_escape, shown)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that os.fsdecode could not decode
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
