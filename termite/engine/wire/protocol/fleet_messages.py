"""The messages between the coordinator and its workers and masters, as typed structs."""

from typing import Annotated

import msgspec
from msgspec import Meta

from termite.engine.model import Count, Label, MachineFacts, Seconds, Slots
from termite.engine.wire.protocol.message_base import Message

MOST_LEASES = 64  # of a worker: as many mirrors as it runs at once


class SlotUse(msgspec.Struct, frozen=True, array_like=True):
    """The use of a worker's slots by one `user`, which is `user@host`.

    `running` jobs run in these slots.
    """

    user: Label
    slots: Slots
    running: Slots


class Register(Message, frozen=True):
    """The request of a worker to the coordinator, when it starts and as a heartbeat.

    If the host in `address` is empty, the coordinator uses the address of the connection. `load` is
    the load average of the machine. `draining`: the worker takes no new jobs. `machine` has the
    facts about which commands may ask. `release` is the version of the worker's termite. `uses` has
    the users of the slots.
    """

    protocol: int
    name: Label
    address: Label  # "host:port", or ":port"
    slots: Slots
    leased: Slots
    load: Seconds
    free_memory_bytes: Count
    draining: bool = False
    machine: MachineFacts = MachineFacts()
    release: Label = ""
    uses: Annotated[tuple[SlotUse, ...], Meta(max_length=MOST_LEASES)] = ()


class Registered(Message, frozen=True):
    """The reply to Register. The worker must register again every `interval_s` seconds.

    The coordinator forgets a worker after three times as long.
    """

    interval_s: Annotated[float, Meta(ge=0.001, le=1e6)]


class Deregister(Message, frozen=True):
    """The request of a worker to the coordinator to forget it, because it ends."""

    name: Label


class ListedWorker(msgspec.Struct, frozen=True, array_like=True):
    """A live worker as the coordinator knows it; the fields are those of Register.

    `rival` is the address of another worker that has the same name, or "".
    """

    name: Label
    address: Label
    slots: Slots
    leased: Slots
    load: Seconds
    free_memory_bytes: Count
    draining: bool
    machine: MachineFacts = MachineFacts()
    rival: Label = ""


class ListWorkers(Message, frozen=True):
    """The request of a master to the coordinator for the list of workers.

    It is answered immediately if the list has changed since version `after`. Otherwise it is
    answered when the list changes, or after 30 seconds.
    """

    protocol: int
    after: int


class Workers(Message, frozen=True):
    """The reply to ListWorkers. `version` changes when a worker comes, goes or drains.

    `release` is the version of the coordinator's termite.
    """

    version: int
    workers: tuple[ListedWorker, ...]
    release: Label = ""
