"""The messages between a coordinator and its workers, masters and readers, as typed structs."""

from typing import Annotated

import msgspec
from msgspec import Meta

from termite.engine.model import Count, Label, MachineFacts, Seconds, Slots
from termite.engine.wire.protocol.message_base import Message

MOST_LEASES = 64  # of a worker: as many mirrors as it runs at once
LOG_CHARACTERS = 64 * 1024  # of JSON: all records of a log that one report has
MOST_LOG_RECORDS = 200
MOST_GONE = 100  # workers that have left the list and are still shown


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


class GoneWorker(msgspec.Struct, frozen=True, array_like=True):
    """A worker that is in the list no more: it said goodbye `gone_s` ago, because it was stopped.

    If it `is_lost`, it said nothing, and its last heartbeat came `gone_s` ago.
    """

    name: Label
    gone_s: Seconds
    is_lost: bool


class Workers(Message, frozen=True):
    """The reply to ListWorkers. `version` changes when a worker comes, goes or drains.

    `release` is the version of the coordinator's termite. `gone` has the workers that have left
    lately, for people.
    """

    version: int
    workers: tuple[ListedWorker, ...]
    release: Label = ""
    gone: Annotated[tuple[GoneWorker, ...], Meta(max_length=MOST_GONE)] = ()


# -- the farm as people see it ----------------------------------------------------------------------------------------
# A coordinator answers ListFarm itself. It passes the other requests on to the worker, over the
# connection on which that registers.


class ListFarm(Message, frozen=True):
    """The request of a program for people to a coordinator: all workers, as they are now.

    `key` is that of the coordinator's own pages. Without it, the answer names no user.
    """

    protocol: int
    key: bytes = b""


class FarmWorker(msgspec.Struct, frozen=True, array_like=True):
    """A worker of a farm. Its last heartbeat came `silent_s` ago.

    `is_lost`: the coordinator has removed it from the list, because it was silent for too long.
    `is_stopped`: it has left the list itself, because it was stopped `silent_s` ago.
    """

    worker: ListedWorker
    silent_s: Seconds = 0.0
    is_lost: bool = False
    release: Label = ""
    uses: Annotated[tuple[SlotUse, ...], Meta(max_length=MOST_LEASES)] = ()
    is_stopped: bool = False

    @property
    def is_gone(self) -> bool:
        """True if the coordinator gives the worker to no master any more."""
        return self.is_lost or self.is_stopped


class WholeFarm(Message, frozen=True):
    """The reply to ListFarm. Workers register every `interval_s`.

    `release` is the version of the coordinator's termite.
    """

    workers: tuple[FarmWorker, ...]
    interval_s: Seconds
    release: Label = ""


class GetWorkerReport(Message, frozen=True):
    """The request for the state of the worker `name`, which a coordinator passes on to it.

    A coordinator's pages send `key`, as in ListFarm. The coordinator removes it, and sets
    `is_private`: then the report names users, and has the whole end of the log.
    """

    protocol: int
    name: Label
    key: bytes = b""
    is_private: bool = False


class LeaseReport(msgspec.Struct, frozen=True, array_like=True):
    """A lease of a worker: since when, with how many slots, and what its jobs have used.

    `jobs` counts its jobs, and `running` those that run now. `cpu_s` is the CPU time of those that
    have ended. `job_s` is the sum of the times of all, and `busy_s` the time in which any ran.
    `user` is "" for a reader who may not know it.
    """

    user: Label
    since_s: Seconds
    slots: Slots
    running: Slots
    jobs: Count
    cpu_s: Seconds
    job_s: Seconds
    busy_s: Seconds


class StoreReport(msgspec.Struct, frozen=True, array_like=True):
    """A store of contents on a worker's disk, with its limits. `name` says whose it is."""

    name: Label
    size_bytes: Count
    files: Count
    max_bytes: Count
    max_files: Count


class WorkerReport(Message, frozen=True):
    """The reply to GetWorkerReport.

    * `up_s` is the time since the worker's start. `total` has the sums over all its leases since
      then, ended ones too.
    * `stores` is None if their sizes are not known yet.
    * `log` has the last records of the log that the reader may see.
    """

    name: Label
    is_drained: bool
    up_s: Seconds
    total: LeaseReport
    leases: Annotated[tuple[LeaseReport, ...], Meta(max_length=MOST_LEASES)]
    stores: Annotated[tuple[StoreReport, ...], Meta(max_length=MOST_LEASES)] | None
    log: Annotated[tuple[Annotated[str, Meta(max_length=LOG_CHARACTERS)], ...], Meta(max_length=MOST_LOG_RECORDS)]


class DrainWorker(Message, frozen=True):
    """The request that the worker `name` takes no new jobs, or takes jobs again.

    A coordinator passes it on to the worker. The reply is Done.
    """

    protocol: int
    name: Label
    is_drained: bool
