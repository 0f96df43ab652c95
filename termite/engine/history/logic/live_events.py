"""The events of a master's live stream, and their form on the control socket.

A stream begins with a Snapshot, and each later event changes the state that the snapshot shows.
If a reader was too slow, it gets Missed and then a new Snapshot, which replaces everything.
docs/develop/records.md says when each event is sent. Times are as in `job_record`.
"""

import msgspec

from termite.engine.errors import RemoteProtocolError
from termite.engine.history.logic.job_record import SCHEMA, BuildRecord, FailedAttempt, JobRecord


class WorkerState(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """The state of a worker as a master sees it.

    `slots` are leased ones, `running` and `jobs` count this master's jobs there. Figures of the
    machine are 0 (`load`: -1.0) if they are not known. `silent_since_s` is 0.0 if the worker
    answers. `reason` is the value of a `Reason` if the worker is refused, else "". `detail` is its
    machine's architecture if that is the reason, else "". A worker that
    `is_drained` takes no new jobs. `gone_since_s` is 0.0 if the coordinator lists the worker. If
    not, it was stopped then, or (`is_lost`) gave its last sign of life. `broken_since_s` is 0.0
    unless it has no lease because the connection of the last one broke then.
    """

    name: str
    address: str = ""
    version: str = ""
    slots: int = 0
    running: int = 0
    jobs: int = 0
    cores: int = 0
    load: float = -1.0
    free_memory_bytes: int = 0
    clock_offset_ms: int = 0
    silent_since_s: float = 0.0
    reason: str = ""
    detail: str = ""
    is_drained: bool = False
    gone_since_s: float = 0.0
    is_lost: bool = False
    broken_since_s: float = 0.0

    @property
    def is_gone(self) -> bool:
        """True if the coordinator gives the worker to no master any more."""
        return bool(self.gone_since_s)


class MasterState(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """A master: its process, the directory of its tree, and since when it runs."""

    pid: int
    tree: str
    version: str = ""
    started_s: float = 0.0
    local_slots: int = 0


class _Tagged(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=True, kw_only=True):
    """The base of events. An event is an array that begins with the name of its class."""


class Snapshot(_Tagged, frozen=True):
    """Everything that is true at `at_s`. `jobs` are not home yet, `builds` run now.

    `waits_for` says for people what the queue waits for; "" means for nothing but free slots.
    """

    at_s: float
    master: MasterState
    jobs: tuple[JobRecord, ...] = ()
    builds: tuple[BuildRecord, ...] = ()
    workers: tuple[WorkerState, ...] = ()
    waits_for: str = ""
    schema: int = SCHEMA


class JobQueued(_Tagged, frozen=True):
    """A job that waits. Jobs that are decided and handed over at once are never queued."""

    job: JobRecord


class JobSent(_Tagged, frozen=True):
    """The start of an attempt: on a worker, or (`worker` is "") on the master's machine."""

    job: JobRecord


class JobEnded(_Tagged, frozen=True):
    """The end of a job's command on a worker. Its results come home now."""

    id: int
    started_s: float
    ended_s: float
    exit_code: int
    signal: int = 0


class JobRetried(_Tagged, frozen=True):
    """A failed attempt. The job is queued again."""

    id: int
    attempt: FailedAttempt


class JobHome(_Tagged, frozen=True):
    """The end of a job, with its finished record, which is that of the files as well."""

    job: JobRecord


class BuildStarted(_Tagged, frozen=True):
    """The start of a build."""

    build: BuildRecord


class BuildEnded(_Tagged, frozen=True):
    """The end of a build, with its finished record."""

    build: BuildRecord


class WorkerChanged(_Tagged, frozen=True):
    """A worker that joined, or whose slots, load or silence changed. It replaces the old state.

    A refused worker comes this way too, with its `reason`.
    """

    worker: WorkerState


class WorkerLeft(_Tagged, frozen=True):
    """A worker that is shown no more. `reason` is the value of a `Reason`, or ""."""

    name: str
    at_s: float
    reason: str = ""
    detail: str = ""


class QueueWaits(_Tagged, frozen=True):
    """A change of what the queue waits for, for people. "" means for nothing but free slots."""

    waits_for: str


class Missed(_Tagged, frozen=True):
    """The number of events that were dropped for a slow reader. A Snapshot follows."""

    count: int


Event = (
    Snapshot
    | JobQueued
    | JobSent
    | JobEnded
    | JobRetried
    | JobHome
    | BuildStarted
    | BuildEnded
    | WorkerChanged
    | WorkerLeft
    | QueueWaits
    | Missed
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


def pack_event(event: Event) -> bytes:
    """Return the payload of an event's frame."""
    return _encoder.encode(event)


def parse_event(payload: bytes) -> Event:
    """Return the event of a frame. Raise RemoteProtocolError if the payload is none."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # ValueError: a text that is no UTF-8
        raise RemoteProtocolError(f"an event that cannot be read: {error}") from None
