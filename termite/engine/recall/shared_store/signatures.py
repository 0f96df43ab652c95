"""Sign records for a shared store, and open those of trusted writers.

A signature is Ed25519 over `termite shared record 1`, the kind and the name of the record, and its
body. A store can therefore not pass one record off as another one.
"""

import base64
import binascii
import enum
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64
_CONTEXT = b"termite shared record 1\0"


class RecordKind(enum.StrEnum):
    """A kind of record in a shared store, by what names it."""

    PATH_SETS = "path-sets"  # the weak fingerprint of a command
    RESULT = "result"  # a strong fingerprint
    SHAPE = "shape"  # the identity of a shape that was refused


class RecordName(NamedTuple):
    """The name of a record in a shared store."""

    kind: RecordKind
    digest: bytes


class Distrust(enum.StrEnum):
    """The reason why a record is not used."""

    FORM = "form"  # it is no record
    WRITER = "writer"  # nobody trusts its writer
    SIGNATURE = "signature"


class Distrusted(Exception):
    """A record that must not be used, for the reason in its first argument."""

    def __init__(self, reason: Distrust) -> None:
        super().__init__(reason)
        self.reason = reason


class _Signed(msgspec.Struct, frozen=True, array_like=True):
    writer: bytes
    signature: bytes
    body: bytes


class WriterKey:
    """The key with which a machine signs what it writes to shared stores."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()

    def sign(self, name: RecordName, body: bytes) -> bytes:
        """Return a signed record."""
        signature = self._private.sign(_signed_bytes(name, body))
        return msgspec.msgpack.encode(_Signed(self.public, signature, body))

    @property
    def public_text(self) -> str:
        """The public half as settings name it."""
        return base64.b64encode(self.public).decode()


def open_signed(packed: bytes, name: RecordName, trusted: Mapping[bytes, str]) -> tuple[bytes, str]:
    """Return the body of a record of this name, and the name of its writer.

    `trusted` has names of writers by their public keys. Raise Distrusted.
    """
    try:
        signed = msgspec.msgpack.decode(packed, type=_Signed)
    except (msgspec.MsgspecError, RecursionError):  # what is behind the fields may be nested without end
        raise Distrusted(Distrust.FORM) from None
    if len(signed.writer) != PUBLIC_BYTES or len(signed.signature) != SIGNATURE_BYTES:
        raise Distrusted(Distrust.FORM)
    writer = trusted.get(signed.writer)
    if writer is None:
        raise Distrusted(Distrust.WRITER)
    try:
        public = Ed25519PublicKey.from_public_bytes(signed.writer)
        public.verify(signed.signature, _signed_bytes(name, signed.body))
    except (InvalidSignature, ValueError):
        raise Distrusted(Distrust.SIGNATURE) from None
    return signed.body, writer


def parse_public_key(text: str) -> bytes:
    """Return the public half of a key. Raise ValueError if the text is none."""
    try:
        public = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(text) from error
    if len(public) != PUBLIC_BYTES:
        raise ValueError(text)
    return public


def _signed_bytes(name: RecordName, body: bytes) -> bytes:
    # Each kind has digests of one length, so that nothing can be read in two ways.
    return b"%b%b\0%d\0%b%b" % (_CONTEXT, name.kind.encode(), len(name.digest), name.digest, body)
