"""Define every message between two daemons as a typed struct.

docs/develop/protocol.md says which reply belongs to which request. Structs are encoded as msgpack
arrays that begin with the tag, so fields may only be added at the end, with a default. Chunks
(stdout, blobs) are sent beside the messages, on the request's stream.

A received message is refused when it is decoded if a field violates its type or `__post_init__`.
If the sender itself makes such a message, `__post_init__` raises ValueError.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from termite.engine.model import (
    Attr,
    Change,
    Changeset,
    Count,
    Digest,
    Errno,
    Exit,
    GroupIds,
    Label,
    MachineFacts,
    Offset,
    PackedTrace,
    Seconds,
    Sha256,
    Slots,
    StdinFile,
    TerminalWish,
    TraceMode,
    Usage,
    UserId,
    WindowSize,
    WorkerRoom,
)
from termite.engine.paths import MOST_FRESH
from termite.engine.wire.protocol.failure_replies import Failed
from termite.engine.wire.protocol.fleet_messages import (
    Deregister,
    DrainWorker,
    GetWorkerReport,
    ListFarm,
    ListWorkers,
    Register,
    Registered,
    WholeFarm,
    WorkerReport,
    Workers,
)
from termite.engine.wire.protocol.message_base import LongPath, Message

PROTOCOL = 10  # both ends must have the same; if not, the operator reads one clear line
INLINE_BYTES = 64 * 1024  # contents up to this size are sent inside a message, not as chunks
INLINE_TOTAL_BYTES = 1024 * 1024  # of all contents inside one message
MAX_CHANGES = 200_000  # of one job, in all parts of its result
MAX_DROPPED = 1000  # names of writes that do not come home; if there are more, directories stand for them
# Limits of a process: RESOURCE:SOFT:HARD, with commas between them; "-" is no limit.
LIMITS = r"\A(\d{1,2}:(\d{1,20}|-):(\d{1,20}|-)(,(?!\Z)|\Z))*\Z"
LIMITS_CHARACTERS = 1000
TYPED_BYTES = 64 * 1024  # of one UseTerminal


class Done(Message, frozen=True):
    """The reply to a request that has no result."""


# -- master -> mirror -------------------------------------------------------------------------------------------------


class OpenLease(Message, frozen=True):
    """The first request of a master on a connection to a worker, which asks for slots.

    `writable_root` is a path below the root, without a leading slash. Jobs see `uid`, `gid` and
    `hostname` as theirs. `number` is the current number of the journal; the mirror starts with it
    and knows no files. `clock_ns` is the master's clock. `owner` is a key that no other master has:
    from the store this one gets what it has sent, what its jobs have made, and public files.
    Results may have entries below the directories `temporary`, too. `groups` are other groups of
    the user. `user` is `user@host`, for people who look at the worker.
    """

    protocol: int
    master: Label
    slots: Slots
    uid: UserId
    gid: UserId
    writable_root: bytes
    number: Count
    clock_ns: int
    hostname: Label
    owner: Sha256
    temporary: tuple[bytes, ...] = ()
    groups: GroupIds = ()
    user: Label = ""


class Leased(Message, frozen=True):
    """The reply to OpenLease. `slots` is the number of granted slots, 0 if the worker has none.

    `clock_ns` is the worker's clock when it answered. `machine` has the facts about which commands
    may ask. `release` is the version of the worker's termite.
    """

    worker: Label
    slots: Slots
    clock_ns: int
    machine: MachineFacts
    release: Label = ""
    room: WorkerRoom = WorkerRoom()


class Run(Message, frozen=True):
    """The request of a master to run a command at the state `number` of the journal.

    * `changesets` are all changesets after the last one of this lease.
    * stdout and stderr come as chunks on this stream. The first byte of each is b"1" or b"2"; with
      `merge` it is always b"1".
    * `exe` and `search` are those of Invocation. The entries of `env` are b"NAME=value".
    * `cwd` has a leading slash.
    * If `stdin`, the job's standard input is read from the master on demand (ReadStdin). It is the
      file `stdin_file`, or a stream if that is None. If not `stdin`, it is closed (`stdin_closed`),
      a pipe at its end (`stdin_ended`), or /dev/null.
    * `contents` has small files, by their paths, that changed up to `number`. No worker has them.
    * 0 means no limit for `timeout_s` and `memory_bytes`. `limits` are those of the launcher's
      process, as LIMITS says; "" means the usual ones. `nice` is its niceness, and `ignored` has
      bit N - 1 for each ignored signal N.
    * `terminal` has the terminals of the job, None if it has none. If the job reads from one at
      which nobody types, the run fails.
    * `trace` says how the job is traced. The master has learnt `names_known` names of the traces of
      this lease.
    * `fresh` are paths of private files in temporary directories, which are not listed. A job that
      looks for one fails with RETRYABLE: it runs on the master's machine.
    """

    job: Count
    number: Count
    changesets: tuple[Changeset, ...]
    argv: tuple[bytes, ...]
    exe: bytes
    search: bool
    env: tuple[bytes, ...]
    cwd: bytes
    umask: Annotated[int, Meta(ge=0, le=0o777)]
    stdin: bool
    merge: bool
    network: bool = False
    timeout_s: Seconds = 0.0
    memory_bytes: Count = 0
    stdin_file: StdinFile | None = None
    stdin_closed: bool = False
    stdin_ended: bool = False
    contents: dict[bytes, bytes] = msgspec.field(default_factory=dict)
    limits: Annotated[str, Meta(pattern=LIMITS, max_length=LIMITS_CHARACTERS)] = ""
    nice: Annotated[int, Meta(ge=0, le=19)] = 0
    ignored: Annotated[int, Meta(ge=0, lt=2**31)] = 0
    terminal: TerminalWish | None = None
    trace: TraceMode = TraceMode.OFF
    names_known: Count = 0
    fresh: Annotated[tuple[bytes, ...], Meta(max_length=MOST_FRESH)] = ()

    def __post_init__(self) -> None:
        """Refuse values that execve and chdir cannot take.

        A NUL would also end a field of the order that the sandbox gets.
        """
        if b"\0" in b"".join((*self.argv, *self.env, self.exe, self.cwd)):
            raise ValueError("a NUL byte in a command, its environment or its directory")
        if not self.cwd.startswith(b"/"):
            raise ValueError("a directory without a leading slash")


class Ran(Message, frozen=True):
    """The reply to Run. Its times are those of the worker's clock.

    * `changes` are below the writable root only. `inline` has contents up to INLINE_BYTES by their
      SHA-256; the others are fetched with GetBlob.
    * `dropped` has paths that were written outside the writable root and the temporary directories,
      and sockets in the root. If there are too many, directories stand for what is below them.
    * `exec_errno` is 0, or the error of execve if the command could not be started; `exit` is then
      126 or 127.
    * `stdin_offset` is the job's final position in a file that was its standard input, or -1 if it
      is not known. `stdin_taken` is how many bytes of a stream the job has consumed.
    * `trace` is None if the job was not traced.
    """

    exit: Exit
    usage: Usage
    changes: Annotated[tuple[Change, ...], Meta(max_length=MAX_CHANGES)]
    inline: Annotated[dict[Sha256, bytes], Meta(max_length=MAX_CHANGES)]
    started_ns: int
    ended_ns: int
    dropped: Annotated[tuple[bytes, ...], Meta(max_length=MAX_DROPPED)] = ()
    exec_errno: Errno = 0
    timed_out: bool = False
    stdin_offset: Offset = -1
    stdin_taken: Count = 0
    trace: PackedTrace | None = None


class GetBlob(Message, frozen=True):
    """The request of a master for a content, which comes as chunks and then Done.

    The master checks the digest.
    """

    digest: Digest


class UseTerminal(Message, frozen=True):
    """The request of a master to change the window of a job's terminals, or to type at one.

    The reply is Done when the terminal has taken all bytes of `typed`, or the job has ended.
    """

    job: Count
    size: WindowSize | None = None
    typed: Annotated[bytes, Meta(max_length=TYPED_BYTES)] = b""


class GetLog(Message, frozen=True):
    """The request of a master for the last records of the worker's log.

    The worker shows at most `most` records with numbers above `after`. They are numbered from 1.
    """

    after: Count
    most: Count


class LogRecords(Message, frozen=True):
    """The reply to GetLog. `number` is that of the last record, whether it is shown or not."""

    number: Count
    records: tuple[str, ...]


class Ping(Message, frozen=True):
    """The request of either side on a silent connection, which is answered by Pong."""


class Pong(Message, frozen=True):
    """The reply to Ping, with the clock of the side that answers."""

    clock_ns: int


class SetSlots(Message, frozen=True):
    """The request of a mirror to its master to use at most `slots` from now on.

    The worker shares its slots with another master, or drains.
    """

    slots: Slots


# -- mirror -> master -------------------------------------------------------------------------------------------------


class GetDirectory(Message, frozen=True):
    """The request of a mirror for the entries of one directory.

    It fails with FS if there is no such directory.
    """

    path: LongPath


class Directory(Message, frozen=True):
    """The reply to GetDirectory, as of the number `number` of the journal.

    `attr` has the attributes of the directory itself, `children` those of its entries. The digest
    of a file is None if the master does not know it. If it `is_partial`, it has entries that jobs
    must not see. If it `is_unlisted`, only what leads to other places was looked at.
    """

    number: Count
    attr: Attr
    children: dict[bytes, Attr]
    is_partial: bool = False
    is_unlisted: bool = False


class GetEntry(Message, frozen=True):
    """The request of a mirror for an entry that a job looks for, and that was not listed.

    It fails with RETRYABLE if the entry is a file that exists: the command then runs on the
    master's machine.
    """

    path: LongPath


class Entry(Message, frozen=True):
    """The reply to GetEntry: the attributes of a directory or a symlink.

    They are None if nothing is there.
    """

    attr: Attr | None = None


class GetFile(Message, frozen=True):
    """The request of a mirror for the content of a file, which was listed with this size and mtime.

    The reply is File. A small content is inside the reply, another one comes as chunks before it.
    If the digest is `candidate`, which the worker has already, the content is not sent. If the file
    has changed, the request fails with STALE.
    """

    path: LongPath
    size: Count
    mtime_ns: int
    candidate: Digest | None = None


class File(Message, frozen=True):
    """The reply to GetFile, with the digest of the content, which the mirror checks.

    `content` is None if it came as chunks, or if the worker has it already.
    """

    digest: Digest
    content: bytes | None = None


class ReadStdin(Message, frozen=True):
    """The request of a mirror for up to `size` bytes of a job's standard input.

    The reply is StdinBytes; no bytes mean the end. `offset` is a position in a file, or -1 for the
    next bytes of a stream. With `peek`, the job may consume fewer bytes than it gets; it has then
    consumed all bytes that it got before.
    """

    job: Count
    size: Count
    offset: Offset = -1
    peek: bool = False


class StdinTaken(Message, frozen=True):
    """The request of a mirror to note that a job has consumed `taken` bytes of its stdin in all."""

    job: Count
    taken: Count


class StdinBytes(Message, frozen=True):
    """The reply to ReadStdin."""

    content: bytes


# -- a request that failed --------------------------------------------------------------------------------------------


Request = (
    Register
    | Deregister
    | ListWorkers
    | ListFarm
    | GetWorkerReport
    | DrainWorker
    | OpenLease
    | Run
    | GetBlob
    | UseTerminal
    | GetLog
    | Ping
    | SetSlots
    | GetDirectory
    | GetEntry
    | GetFile
    | ReadStdin
    | StdinTaken
)
Reply = (
    Registered
    | Workers
    | WholeFarm
    | WorkerReport
    | Done
    | Leased
    | Ran
    | LogRecords
    | Pong
    | Directory
    | Entry
    | File
    | StdinBytes
    | Failed
)
