"""Sign certificates with the cluster's authority, a key that is derived from the shared secret.

The certificate of the authority is the same, byte for byte, on every machine. Each daemon uses the
authority to sign a short-lived certificate of its own. This module is not part of identity.py,
because the library that makes certificates takes 9 MB of memory, and a mirror makes none.
"""

import datetime
import enum

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from termite.engine.wire.identity import COORDINATOR_NAME, SERVER_NAME, Identity

VALIDITY = datetime.timedelta(days=30)
MIRROR_VALIDITY = datetime.timedelta(hours=1)  # a mirror shakes hands once, as soon as it has started
BACKDATED = datetime.timedelta(days=1)  # the clock of another machine may be behind ours
_AUTHORITY_NAME = "termite authority"
_AUTHORITY_SERIAL = 1
_AUTHORITY_SINCE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_AUTHORITY_UNTIL = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)
_NAME_MAX_CHARS = 64  # X.509's limit for a common name


class Role(enum.Enum):
    """A role that a certificate gives. The other side of a connection checks it."""

    CLIENT = enum.auto()  # a master, or a worker that registers with the coordinator
    COORDINATOR = enum.auto()
    MIRROR = enum.auto()


def mint(secret: bytes, name: str, role: Role, now: datetime.datetime | None = None) -> Identity:
    """Make a new identity for `name`, which only people read, valid from `now` on.

    It is valid for VALIDITY, that of a mirror for MIRROR_VALIDITY. None stands for the time of this
    machine. A mirror runs the jobs of others, so its certificate must be of no use to a program
    that steals it. It cannot open a lease, list workers or register one, and cannot pretend to be a
    coordinator.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    until = now + (MIRROR_VALIDITY if role is Role.MIRROR else VALIDITY)
    usage = ExtendedKeyUsageOID.CLIENT_AUTH if role is Role.CLIENT else ExtendedKeyUsageOID.SERVER_AUTH
    names = (SERVER_NAME, COORDINATOR_NAME) if role is Role.COORDINATOR else (SERVER_NAME,)
    authority_key = _authority_key(secret)
    key = Ed25519PrivateKey.generate()
    certificate = (
        _certificate(key, name[:_NAME_MAX_CHARS] or "termite", authority_key, now - BACKDATED, until)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
        .sign(authority_key, None)
    )
    proves = role is Role.CLIENT  # a mirror must have nothing that jobs could use elsewhere
    return Identity(
        _pem(certificate), _key_pem(key), _pem(_authority(authority_key)), member_key(secret) if proves else b""
    )


def member_key(secret: bytes) -> bytes:
    """Return the key for proofs of membership (identity.py)."""
    return HKDF(hashes.SHA256(), 32, salt=b"termite", info=b"proof of membership 1").derive(secret)


def _authority_key(secret: bytes) -> Ed25519PrivateKey:
    seed = HKDF(hashes.SHA256(), 32, salt=b"termite", info=b"certificate authority 1").derive(secret)
    return Ed25519PrivateKey.from_private_bytes(seed)


def _authority(key: Ed25519PrivateKey) -> x509.Certificate:
    signs_only = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    return (
        _certificate(key, _AUTHORITY_NAME, key, _AUTHORITY_SINCE, _AUTHORITY_UNTIL)
        .serial_number(_AUTHORITY_SERIAL)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(signs_only, critical=True)
        .sign(key, None)
    )


def _certificate(
    key: Ed25519PrivateKey,
    name: str,
    authority_key: Ed25519PrivateKey,
    since: datetime.datetime,
    until: datetime.datetime,
) -> x509.CertificateBuilder:
    public = key.public_key()
    authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(_common_name(name))
        .issuer_name(_common_name(_AUTHORITY_NAME))
        .public_key(public)
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(authority_id, critical=False)
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: Ed25519PrivateKey) -> str:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
