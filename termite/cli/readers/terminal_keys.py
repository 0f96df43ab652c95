"""Take apart what a terminal sends while keys are pressed."""

import re

_NAMES = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
    b"\x1b[1~": "home",
    b"\x1b[4~": "end",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\r": "enter",
    b"\n": "enter",
    b"\t": "tab",
    b"\x1b": "escape",
    b"\x03": "q",
}
# ECMA-48, 5.4: a control sequence has parameters, intermediate bytes and a final byte. `ESC O` is
# that of keys in the application mode. `ESC` and another byte is a key that was pressed with Alt.
_KEY = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO[@-~]|\x1b(?=\x1b|$)|\x1b.|.", re.DOTALL)
_CUT = re.compile(rb"\x1b(?:O|\[[0-?]*[ -/]*)?\Z")


def is_cut(pressed: bytes) -> bool:
    """Return True if the last key may lack bytes. It is `escape` if no more of them come."""
    return _CUT.search(pressed) is not None


def keys_of(pressed: bytes) -> list[str]:
    """Return the names of the keys in what a terminal has sent: `up`, `enter`, or the character.

    A key that has no name here is left out, as are bytes that are not ASCII.
    """
    sent = (key.replace(b"\x1bO", b"\x1b[") for key in _KEY.findall(pressed))
    return [name for key in sent if (name := _NAMES.get(key) or (key.decode("latin-1") if b" " <= key <= b"~" else ""))]
