"""The base of all messages between two daemons."""

import msgspec


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The base class of all messages."""


# -- coordinator ------------------------------------------------------------------------------------------------------
