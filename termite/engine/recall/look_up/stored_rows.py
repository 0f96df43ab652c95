"""Name the values that the store keeps, and pack them.

A packed value carries a checksum. A value that was damaged on the disk, or that another version of
termite wrote, counts as missing.
"""

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from termite.engine.model import Change, Digest, Usage
from termite.engine.recall.logic.uses import PathSet

CHECKSUM_BYTES = 8
MOST_PLAIN_BYTES = 1024  # the paths of a longer path set repeat each other, and shrink to a sixth
MOST_UNPACKED_BYTES = 256 * 1024 * 1024  # more than any result or path set: they shrink a thousandfold at most
_PLAIN, _COMPRESSED = b"\0", b"\1"
V = TypeVar("V")


class OutputPiece(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Bytes that a job wrote to descriptor 1 or 2. The pieces keep their order."""

    fd: int
    content: bytes


class RecordedResult(msgspec.Struct, frozen=True, array_like=True):
    """The result of one run, as the worker reported it.

    `changes` are those of the job, with mtimes of the worker's clock; the contents are in the
    store. `started_ns` and `ended_ns` are of the same clock: a Timing made of them gives the
    outputs new times in their order. `job` names the job that was executed. `tools` are the files
    it executed. If the output is long, it is the blob `output_blob`, a packed list of pieces.
    `at_s` is the end in seconds since 1970 by the master's clock. `carried` has pairs of an output
    and the file whose time it gets (`use_rules.py`). `stdin_offset` is the final position in a
    standard input that is a file, or -1 if it is not known.
    """

    changes: tuple[Change, ...]
    output: tuple[OutputPiece, ...]
    started_ns: int
    ended_ns: int
    usage: Usage = Usage()
    code: int = 0
    job: str = ""
    tools: tuple[bytes, ...] = ()
    output_blob: Digest | None = None
    at_s: float = 0.0
    carried: tuple[tuple[bytes, bytes], ...] = ()
    stdin_offset: int = -1

    @property
    def blobs(self) -> dict[bytes, Digest]:
        """The contents that must be in the store, by SHA-256."""
        found = {}
        for change in self.changes:
            attr = change.attr
            if attr is not None and attr.digest is not None and change.content and change.link_to is None:
                found[attr.digest.sha256] = attr.digest
        if self.output_blob is not None:
            found[self.output_blob.sha256] = self.output_blob
        return found


class PathSetRow(msgspec.Struct, frozen=True, array_like=True):
    """A stored path set, and its identity."""

    id: bytes
    path_set: PathSet


class ResultRow(msgspec.Struct, frozen=True, array_like=True):
    """A stored result and its two strong fingerprints.

    `timed` is the fingerprint with all times that the job asked for, and `blind` the one without.
    Either may be b"": then the result cannot be found by it. `shape` is that of the command.
    `known` has the entries of the table of known tools that vouched for the result, or (). If
    `is_known_blind`, they vouched for it whatever the times of its inputs are. `blind_by` has the
    entries that vouched for nothing but that, or ().
    """

    timed: bytes
    blind: bytes
    path_set_id: bytes
    result: RecordedResult
    shape: bytes = b""
    known: tuple[str, ...] = ()
    is_known_blind: bool = False
    blind_by: tuple[str, ...] = ()


class LastRun(msgspec.Struct, frozen=True, array_like=True):
    """The last run of the job of one name, with which a miss is explained.

    `variables` has a digest of each text. `path_set_id` is that of a path set of the command
    `weak`, or b"". `states` are those of its dependencies (`pack_states`). `obstacle` says why the
    result was not stored, or is "".
    """

    argv: tuple[bytes, ...]
    variables: dict[bytes, bytes]
    others: dict[str, bytes]
    weak: bytes = b""
    path_set_id: bytes = b""
    states: bytes = b""
    obstacle: str = ""
    detail: bytes = b""
    job: str = ""


@dataclass(frozen=True, slots=True)
class StoredRows:
    """All that the store has about one command.

    `path_sets` are ordered by their last use, the newest first.
    """

    path_sets: tuple[PathSetRow, ...] = ()
    results: tuple[ResultRow, ...] = ()


NO_ROWS = StoredRows()


def pack_value(value: object) -> bytes:
    """Return a packed value that begins with its checksum. Long ones are compressed."""
    body = msgspec.msgpack.encode(value)
    body = _COMPRESSED + zlib.compress(body, 1) if len(body) > MOST_PLAIN_BYTES else _PLAIN + body
    return hashlib.sha256(body).digest()[:CHECKSUM_BYTES] + body


def unpack_value(packed: bytes, kind: type[V]) -> V | None:
    """Return a value of this kind, or None if it is damaged or has another form."""
    body = packed[CHECKSUM_BYTES:]
    if hashlib.sha256(body).digest()[:CHECKSUM_BYTES] != packed[:CHECKSUM_BYTES]:
        return None
    try:
        plain = _decompressed(body[1:]) if body.startswith(_COMPRESSED) else body[1:]
        return msgspec.msgpack.decode(plain, type=kind)
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _decompressed(packed: bytes) -> bytes:
    """Return the whole text, or b"" if it is cut or too long. Raise zlib.error."""
    unpacker = zlib.decompressobj()
    plain = unpacker.decompress(packed, MOST_UNPACKED_BYTES)
    return plain if unpacker.eof else b""


def digests_of_texts(texts: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the texts of variables as digests of 8 bytes, so that no secret is stored."""
    return {name: hashlib.sha256(text).digest()[:CHECKSUM_BYTES] for name, text in texts.items()}
