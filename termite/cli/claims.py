"""The claim of a starting master, so that `termite-master & termite-make` starts only one master.

A claim is a listening socket with an abstract name. It disappears with its process, however the
process ends, so a program that waits for it needs no clock. It is made before the imports that
take most of a master's start.
"""

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from termite.cli.flags import with_two_dashes
from termite.engine.paths import MASTER_SOCKET
from termite.engine.socket_peers import peer_ids

PATIENCE_S = 30.0  # a master starts in half a second; a loaded machine takes longer
BACKLOG = 128


def claim_tree(argv: Sequence[str]) -> socket.socket | None:
    """Claim the tree that termite-master's arguments name, until the returned socket is closed.

    Return None if there is no such tree or another process has claimed it. The master reports
    that later.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(_name(Path(os.path.abspath(_socket_in(argv))).parent))
        claim.listen(BACKLOG)
    except OSError:
        claim.close()
        return None
    return claim


def wait_for_claims(directory: Path) -> bool:
    """Wait for masters that are starting for `directory` or above it. Block up to 30 s for each.

    Return True if there was one.
    """
    return any(_wait_for_claim(place) for place in (directory, *directory.parents))


def _wait_for_claim(directory: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting:
        waiting.settimeout(PATIENCE_S)
        try:
            waiting.connect(_name(directory))
        except OSError:  # nobody listens, so no master is starting
            return False
        if peer_ids(waiting.getsockopt)[1] != os.geteuid():
            return False
        with suppress(OSError):  # nothing is ever sent: the call returns when the claim ends
            waiting.recv(1)
        return True


def _name(directory: Path) -> str:
    status = directory.stat()
    return f"\0termite-master-{os.geteuid()}-{status.st_dev:x}-{status.st_ino:x}"


def _socket_in(argv: Sequence[str]) -> str:
    """Return the value of --socket, as the parser will find it.

    Importing the parser would take too long here.
    """
    words = with_two_dashes(argv)
    named = MASTER_SOCKET
    for at, word in enumerate(words):
        name, equals, content = word.partition("=")
        if name == "--socket":
            named = content if equals else "".join(words[at + 1 : at + 2])
    return named or MASTER_SOCKET
