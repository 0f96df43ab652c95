"""Who belongs to the cluster, as TLS has it: a certificate that the cluster's authority has signed (authority.py).

A private key stays in memory: Python loads keys from files only, so it gets an anonymous one.
"""

import os
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from termite.engine.errors import UserError

SERVER_NAME = "termite"  # in every certificate: being of the cluster counts, not the machine's name
SECRET_MIN_BYTES = 16  # a shorter one could be guessed off line from one recorded handshake
SECRET_MAX_BYTES = 64 * 1024


def read_secret(path: Path) -> bytes:
    """The cluster's secret. White space at its end is not part of it, so that it can be passed on as text."""
    make_one = f"make one with `termite-ctl secret {path}` and copy it to every machine"
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            secret = file.read(SECRET_MAX_BYTES + 1).rstrip()
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no secret", hint=make_one) from error
    except OSError as error:
        raise UserError(f"{path}: cannot read the secret: {error.strerror}", hint="see -secret") from error
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise UserError(f"{path}: others can read the secret", hint=f"chmod 0600 {path}")
    if not SECRET_MIN_BYTES <= len(secret) <= SECRET_MAX_BYTES:
        limits = f"{SECRET_MIN_BYTES} to {SECRET_MAX_BYTES} bytes are allowed"
        raise UserError(f"{path}: the secret has {len(secret)} bytes; {limits}", hint=make_one)
    return secret


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key, and the authority that others' certificates must be of; all as PEM."""

    certificate: str
    key: str
    authority: str

    def server_context(self) -> ssl.SSLContext:
        """For the side that was connected to."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0  # nothing is ever resumed
        return context

    def client_context(self) -> ssl.SSLContext:
        """For the side that connects, to the server name SERVER_NAME."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.authority)
        descriptor = os.memfd_create("termite-identity", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write((self.key + self.certificate).encode())
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        return context
