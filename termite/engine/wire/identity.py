"""Read the cluster's secret, and set up TLS so that only members of the cluster can connect.

A member has a certificate that the cluster's authority has signed (authority.py). A private key
never reaches a disk: Python loads keys from files only, so it gets an anonymous file in memory.

The hello of a client has a *proof of membership*: a number that is used once, and its HMAC by a key
that is derived from the secret. The proof stands there as the name of an application protocol
(ALPN, RFC 7301), which a server of TLS ignores if it knows none. A daemon finds it in the hello
without parsing, before it does anything for the connection. A proof decides who is served first,
and nothing else: certificates show who is a member. Somebody who sees the traffic can send a proof
again, so each daemon takes it once.
"""

import hmac
import os
import re
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from termite.engine.errors import UserError
from termite.engine.wire import wire_calls

SERVER_NAME = "termite"  # in every certificate: membership counts, not the machine's name
COORDINATOR_NAME = "coordinator.termite"  # in a coordinator's certificate only
SECRET_MIN_BYTES = 16  # a shorter one could be guessed offline from one recorded handshake
SECRET_MAX_BYTES = 64 * 1024
MOST_SEEN = 10_000  # proofs that a daemon remembers, of some 100 bytes each
_PROOF = re.compile(rb"termite-member-([0-9a-f]{32})-([0-9a-f]{64})")


def read_secret(path: Path) -> bytes:
    """Read the cluster's secret from a file, without the white space at its end.

    Raise UserError if the file is missing, readable for others, of another user, or of a wrong
    size.
    """
    make_one = f"make one with `termite-ctl secret {path}` and copy it to every machine"
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{path}: the secret must be in a regular file", hint="see -secret")
            secret = file.read(SECRET_MAX_BYTES + 1).rstrip()
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no secret", hint=f"copy your cluster's there, or {make_one}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot read the secret: {error.strerror}", hint="see -secret") from error
    if status.st_uid not in (0, os.geteuid()):
        raise UserError(
            f"{path}: the secret belongs to user {status.st_uid}, who could change it",
            hint=f"chown it, or remove it, {make_one}",
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise UserError(f"{path}: others can read the secret", hint=f"chmod 0600 {path}")
    if not SECRET_MIN_BYTES <= len(secret) <= SECRET_MAX_BYTES:
        limits = f"{SECRET_MIN_BYTES} to {SECRET_MAX_BYTES} bytes are allowed"
        raise UserError(f"{path}: the secret has {len(secret)} bytes; {limits}", hint=f"remove it, {make_one}")
    return secret


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key, and the authority that must have signed those of peers.

    All three are PEM texts. A client also has a key for proofs of membership; b"" means none.
    """

    certificate: str
    key: str
    authority: str
    member_key: bytes = b""

    def server_context(self) -> ssl.SSLContext:
        """Return the TLS settings of the side that accepts a connection."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0  # sessions are never resumed
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return the TLS settings of the side that connects, to the server name SERVER_NAME.

        They are for one connection, because they hold a proof that counts once.
        """
        context = self._context(ssl.PROTOCOL_TLS_CLIENT)
        if self.member_key:
            context.set_alpn_protocols([make_proof(self.member_key)])
        return context

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.authority)
        descriptor = wire_calls.memfd_create("termite-identity", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write((self.key + self.certificate).encode())
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        return context


def make_proof(member_key: bytes) -> str:
    """Return a new proof of membership, as the name of an application protocol."""
    number = os.urandom(16).hex()
    return f"termite-member-{number}-{_tag(member_key, number.encode())}"


class Members:
    """The proofs that one daemon has seen, made with `member_key`."""

    def __init__(self, member_key: bytes) -> None:
        self._key = member_key
        self._seen: dict[bytes, None] = {}  # the oldest first

    def proves(self, hello: bytes) -> bool:
        """Return whether a hello has a proof that is right and new. It counts once."""
        found = _PROOF.search(hello)
        if found is None or found[1] in self._seen:
            return False
        if not hmac.compare_digest(_tag(self._key, found[1]).encode(), found[2]):
            return False
        self._seen[found[1]] = None
        if len(self._seen) > MOST_SEEN:
            del self._seen[next(iter(self._seen))]
        return True


def _tag(member_key: bytes, number: bytes) -> str:
    return hmac.digest(member_key, number, "sha256").hex()
