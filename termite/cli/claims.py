"""A master that is starting says so before it is ready: `termite-master & termite-make` must become one master.

A claim is a socket whose name no file has: it goes with its process, however that ends, and who waits for its end needs
no clock. It is made before the imports that take most of a master's start.
"""

import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from termite.cli.client import SOCKET
from termite.cli.flags import with_two_dashes

PATIENCE_S = 30.0  # a master starts in half a second; a loaded machine takes longer
BACKLOG = 128
_PEER = struct.Struct("3i")


def claim_tree(argv: Sequence[str]) -> socket.socket | None:
    """Claim the tree that termite-master's `argv` means, until the socket is closed. None: there is no such tree, or
    somebody has it already; the master itself will say so."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(_name(Path(os.path.abspath(_socket_in(argv))).parent))
        claim.listen(BACKLOG)
    except OSError:
        claim.close()
        return None
    return claim


def wait_for_claims(directory: Path) -> bool:
    """Wait for the master that is just starting for `directory` or the nearest one above it. True: there was one."""
    return any(_wait_for_claim(place) for place in (directory, *directory.parents))


def _wait_for_claim(directory: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting:
        waiting.settimeout(PATIENCE_S)
        try:
            waiting.connect(_name(directory))
        except OSError:
            return False
        _, uid, _ = _PEER.unpack(waiting.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid != os.geteuid():
            return False
        with suppress(OSError):  # it never says anything: this ends with the claim
            waiting.recv(1)
        return True


def _name(directory: Path) -> str:
    status = directory.stat()
    return f"\0termite-master-{os.geteuid()}-{status.st_dev:x}-{status.st_ino:x}"


def _socket_in(argv: Sequence[str]) -> str:
    """As the flags will be read, which needs what takes long."""
    words = with_two_dashes(argv)
    named = SOCKET
    for at, word in enumerate(words):
        name, equals, content = word.partition("=")
        if name == "--socket":
            named = content if equals else "".join(words[at + 1 : at + 2])
    return named or SOCKET
