"""Pack and parse fields: texts `key=value`, each with a NUL byte after it.

The messages of launchers and sandboxes are made of fields (docs/develop/protocol.md), and
native/shared/fields.h does the same in C. A *record* is something else: what is kept of a job.
"""

from collections.abc import Iterable, Iterator, Sequence

from termite.engine.errors import RemoteProtocolError

Fields = Iterable[tuple[str, bytes]]


def pack_fields(fields: Fields) -> bytes:
    """Return the bytes `key=value` with a NUL after each field.

    Raise ValueError if a key has a "=", or if a key or a value has a NUL.
    """
    packed = [_checked(key) + b"=" + content + b"\0" for key, content in fields]
    whole = b"".join(packed)
    if whole.count(b"\0") != len(packed):
        raise ValueError("a NUL byte inside the value of a field")
    return whole


def pack_all(key: str, contents: Sequence[bytes]) -> bytes:
    """Return one field for each of `contents`, all with the same key, as `pack_fields` does.

    This is faster for a command line or an environment. Raise ValueError like `pack_fields`.
    """
    if not contents:
        return b""
    if b"\0" in b"".join(contents):
        raise ValueError("a NUL byte inside the value of a field")
    start = _checked(key) + b"="
    return start + (b"\0" + start).join(contents) + b"\0"


def _checked(key: str) -> bytes:
    if "=" in key or "\0" in key:
        raise ValueError(f"not the key of a field: {key!r}")
    return key.encode()


def parse_fields(payload: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the fields of a payload as (key, value), in order.

    Raise RemoteProtocolError if a field has no "=", or if the last one has no NUL.
    """
    if not payload:
        return
    if not payload.endswith(b"\0"):
        raise RemoteProtocolError("a field without a NUL at its end")
    for field in payload[:-1].split(b"\0"):
        key, equals, content = field.partition(b"=")
        if not equals:
            raise RemoteProtocolError(f"a field without '=': {field[:40]!r}")
        yield key.decode("ascii", "replace"), content


def pack_numbers(**numbers: int) -> bytes:
    """Return fields whose values are decimal numbers."""
    return pack_fields((key, b"%d" % number) for key, number in numbers.items())
