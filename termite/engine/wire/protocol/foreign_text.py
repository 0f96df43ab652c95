"""Make texts of other processes, and names of files, safe for logs and terminals.

Such a text may contain a newline and then a line that looks like one of ours, or an escape sequence
that the terminal obeys.
"""

import re

LONGEST = 500  # characters: a line of a log, not a page
LONGEST_LINE = 8000  # of a whole line for a log or a person, which may have several such texts

# Control characters, characters that end a line or change its direction, and undecodable bytes.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, longest: int = LONGEST) -> str:
    """Return the text with an escape like \\x1b for each character that is not printable.

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
