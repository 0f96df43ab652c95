"""Read where a shared store is, and whom it is shared with.

The address is `grpc://HOST:PORT[/INSTANCE]`, or `grpcs://` with TLS. All else is in a file of JSON:

    {"TrustedWriters": {"ci": "PUBLIC KEY"}, "Key": "FILE", "Authorities": "FILE",
     "Certificate": "FILE", "CertificateKey": "FILE", "Headers": {"NAME": "TEXT"}}

Every key may be missing. Names of files begin at the directory of the settings.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import msgspec

from termite.engine.errors import UserError
from termite.engine.recall.shared_store.signatures import WriterKey, parse_public_key
from termite.engine.recall.shared_store.writer_keys import read_private_file, read_writer_key

MOST_FILE_BYTES = 1 << 20  # of settings and of certificates
PACKAGES = ("grpc", "google.protobuf")
OWN_NAME = "this user"  # of the writer whose key the settings have
_ADDRESS = re.compile(r"(grpcs?)://([^/\s]+:\d{1,5})(?:/(\S*))?")
_HEADER = re.compile(r"[0-9a-z_.-]+")
_EXAMPLE = "write grpc://HOST:PORT, grpcs://HOST:PORT, or either with /INSTANCE"


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """The address of a shared store. `instance` may be ""."""

    target: str
    instance: str
    is_encrypted: bool


@dataclass(frozen=True, slots=True)
class SharedSettings:
    """The settings of a shared store.

    `trusted` has the names of writers by their public keys. `key` signs what this machine writes;
    if it is None, nothing is written. The certificates are in PEM, b"" if there are none.
    """

    address: StoreAddress
    trusted: Mapping[bytes, str]
    key: WriterKey | None = None
    authorities: bytes = b""
    certificate: bytes = b""
    certificate_key: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class _File(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    trusted_writers: dict[str, str] = msgspec.field(default_factory=dict)
    key: str = ""
    authorities: str = ""
    certificate: str = ""
    certificate_key: str = ""
    headers: dict[str, str] = msgspec.field(default_factory=dict)


def check_extra() -> None:
    """Raise UserError if the packages of the extra `remote-cache` are not installed."""
    missing = [name for name in PACKAGES if not _is_installed(name)]
    if missing:
        named = ", ".join(missing)
        raise UserError(
            f"a shared store needs Python packages that are not installed: {named}",
            hint="pip install termite[remote-cache]",
        )


def _is_installed(name: str) -> bool:
    with suppress(ModuleNotFoundError):  # of the package above it
        return find_spec(name) is not None
    return False


def parse_address(text: str) -> StoreAddress:
    """Return the address that a user has written. Raise UserError."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise UserError(f"{text} is no address of a shared store", hint=_EXAMPLE)
    return StoreAddress(found[2], (found[3] or "").strip("/"), found[1] == "grpcs")


def read_shared_settings(address: str, path: Path | None, *, writes: bool) -> SharedSettings:
    """Return the settings for a store. `path` is the file, or None if there is none.

    `writes`: results are to be written, so there must be a key. Raise UserError.
    """
    read = _File() if path is None else _read_file(path)
    below = path.parent if path is not None else Path()
    trusted = _trusted_of(read, path)
    key = read_writer_key(below / read.key) if writes and read.key else None
    if writes and key is None:
        raise UserError("the settings of the shared store have no Key to write with", hint="see docs/use/cache.md")
    if key is not None:
        trusted = {key.public: OWN_NAME, **trusted}
    if not trusted:
        raise UserError(
            "the shared store has no TrustedWriters, so no result could be used", hint="see docs/use/cache.md"
        )
    authorities, certificate = (_certificate(below, name) for name in (read.authorities, read.certificate))
    secret = read_private_file(below / read.certificate_key, MOST_FILE_BYTES) if read.certificate_key else b""
    headers = tuple(read.headers.items())
    return SharedSettings(parse_address(address), trusted, key, authorities, certificate, secret, headers)


def files_of_settings(path: Path) -> tuple[Path, ...]:
    """Return the files with secrets of which the settings tell, and the settings themselves.

    Raise UserError.
    """
    read = _read_file(path)
    return (path, *(path.parent / name for name in (read.key, read.certificate_key) if name))


def _read_file(path: Path) -> _File:
    try:
        content = path.read_bytes()[: MOST_FILE_BYTES + 1]
        read = msgspec.json.decode(content, type=_File)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise UserError(f"{path}: {error}", hint="docs/use/cache.md has an example") from error
    if any(not _HEADER.fullmatch(name) or name.startswith("grpc-") for name in read.headers):
        raise UserError(f"{path}: the name of a header has lower-case letters, digits, -, _ and . only")
    if any(not text.isascii() or not text.isprintable() for text in read.headers.values()):
        raise UserError(f"{path}: the text of a header has printable ASCII only")
    if read.headers:
        read_private_file(path, MOST_FILE_BYTES)  # they may have a password
    return read


def _trusted_of(read: _File, path: Path | None) -> Mapping[bytes, str]:
    try:
        return {parse_public_key(text): name for name, text in read.trusted_writers.items()}
    except ValueError as error:
        raise UserError(
            f"{path}: {error} is no public key", hint="`termite-ctl signkey` prints the public half of a new key"
        ) from error


def _certificate(below: Path, name: str) -> bytes:
    if not name:
        return b""
    try:
        return (below / name).read_bytes()[:MOST_FILE_BYTES]
    except OSError as error:
        raise UserError(f"{below / name}: {error.strerror}") from error
