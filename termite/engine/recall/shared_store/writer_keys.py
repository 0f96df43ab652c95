"""Make and read the keys with which a machine signs what it writes to shared stores.

Such a key is made for shared stores alone. It has nothing to do with the secret of a cluster, which
every machine has.
"""

import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from termite.engine.errors import UserError
from termite.engine.recall.shared_store.signatures import WriterKey

MOST_KEY_BYTES = 4096  # of the file of a key


def make_writer_key(path: Path) -> WriterKey:
    """Make a key in a new file, which only this user may read, and return it.

    Raise FileExistsError if the file is there, and OSError if it cannot be made.
    """
    private = Ed25519PrivateKey.generate()
    text = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(text)
    return WriterKey(private)


def read_writer_key(path: Path) -> WriterKey:
    """Return the key in a file. Raise UserError if it is none, or if others may read it."""
    hint = f"make one with `termite-ctl signkey {path}`"
    try:
        private = serialization.load_pem_private_key(read_private_file(path, MOST_KEY_BYTES), None)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: this is no key of a writer", hint=hint) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise UserError(f"{path}: this key is not of Ed25519", hint=hint)
    return WriterKey(private)


def read_private_file(path: Path, most_bytes: int) -> bytes:
    """Return a file that nobody else may read. Raise UserError if that is not so."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{path} is no regular file")
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    if status.st_uid not in (0, os.geteuid()):
        raise UserError(f"{path} belongs to user {status.st_uid}, who could change it")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise UserError(f"{path}: others can read this file", hint=f"chmod 0600 {path}")
    if len(content) > most_bytes:
        raise UserError(f"{path} is larger than {most_bytes} bytes")
    return content
