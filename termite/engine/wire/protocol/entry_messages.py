"""Define the question of a mirror about one entry of a directory that jobs see a part of.

`messages` has all other messages between a mirror and its master.
"""

from termite.engine.model import Attr
from termite.engine.wire.protocol.message_base import LongPath, Message


class GetEntry(Message, frozen=True):
    """The request of a mirror for an entry that was not listed, because a job looks for it.

    It fails with RETRYABLE if the entry is a file that exists: the command then runs on the
    master's machine.
    """

    path: LongPath


class Entry(Message, frozen=True):
    """The reply to GetEntry: the attributes of a directory or a symlink.

    They are None if nothing is there.
    """

    attr: Attr | None = None
