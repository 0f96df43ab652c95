"""Damage a text in the ways in which foreign inputs are wrong."""

from hypothesis import strategies as st

INTERESTING = (b"\0", b"\n", b"=", b"/", b"..", b"-1", b"\xff" * 4, b"\x7f\xff\xff\xff", b"9" * 30, b"[" * 200)


@st.composite
def mutations(draw: st.DrawFn, whole: bytes) -> bytes:
    """Return `whole` after up to four changes.

    A change cuts the end off, flips a byte, removes, doubles or moves a part, or inserts bytes.
    """
    text = whole
    for _ in range(draw(st.integers(1, 4))):
        at, to, end = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 3)))
        match draw(st.sampled_from("cfrdmi")):
            case "c":
                text = text[:end]
            case "f" if text:
                at = min(at, len(text) - 1)
                text = text[:at] + bytes([text[at] ^ draw(st.integers(1, 255))]) + text[at + 1 :]
            case "r":
                text = text[:at] + text[to:]
            case "d":
                text = text[:to] + text[at:to] + text[to:]
            case "m":
                text = text[:at] + text[to:end] + text[at:to] + text[end:]
            case _:
                piece = draw(st.sampled_from(INTERESTING) | st.binary(max_size=8))
                text = text[:at] + piece + text[at:]
    return text
