"""The base of all messages between two daemons, and the path that requests name."""

from typing import Annotated

import msgspec
from msgspec import Meta

from termite.engine.paths import PATH_BYTES

# Many requests may wait. `components` decides whether an honest side names such a path.
LongPath = Annotated[bytes, Meta(max_length=2 * PATH_BYTES)]


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The base class of all messages."""
