"""Every message between two daemons, as a typed struct.

docs/develop/protocol.md says which reply belongs to which request. Structs are encoded as msgpack arrays that begin
with the tag, so fields may only be added at the end, with a default. Chunks (stdout, blobs) travel beside the messages
on the request's stream.

A message of the other side is refused where it is decoded if a field is not what its type says, or not what
`__post_init__` says. The sender's own mistakes come out as ValueError there.
"""

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

from termite.engine.errors import Reason
from termite.engine.model import (
    Attr,
    Change,
    Changeset,
    Count,
    Digest,
    Errno,
    Exit,
    Label,
    Offset,
    Seconds,
    Slots,
    StdinFile,
    Usage,
    UserId,
)

PROTOCOL = 3  # both ends must have the same; a difference is one clear line for the operator
INLINE_BYTES = 64 * 1024  # a file up to this size travels inside a message instead of in a stream of its own
INLINE_TOTAL_BYTES = 1024 * 1024  # but all of one message together not more than this


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages."""


# -- coordinator ------------------------------------------------------------------------------------------------------


class Register(Message, frozen=True):
    """Worker -> coordinator, on start and as a heartbeat. An empty host in `address` means "as you see me"."""

    protocol: int
    name: Label
    address: Label  # "host:port", or ":port"
    slots: Slots
    leased: Slots
    load: Seconds
    free_memory_bytes: Count
    draining: bool = False


class Registered(Message, frozen=True):
    """`interval_s`: register again that often; after three times as long without, a worker is forgotten."""

    interval_s: Annotated[float, Meta(ge=0.001, le=1e6)]


class Deregister(Message, frozen=True):
    """Worker -> coordinator: it leaves now."""

    name: Label


class Worker(msgspec.Struct, frozen=True, array_like=True):
    """One live worker as the coordinator knows it."""

    name: Label
    address: Label
    slots: Slots
    leased: Slots
    load: Seconds
    free_memory_bytes: Count
    draining: bool


class ListWorkers(Message, frozen=True):
    """Master -> coordinator. Answered at once if the list has changed since `after`, else when it does or in 30 s."""

    protocol: int
    after: int


class Workers(Message, frozen=True):
    """`version` changes when a worker comes, goes or drains; not with every heartbeat."""

    version: int
    workers: tuple[Worker, ...]


class Done(Message, frozen=True):
    """The answer where there is nothing to say."""


# -- master -> mirror -------------------------------------------------------------------------------------------------


class OpenLease(Message, frozen=True):
    """The first request on a connection to a worker: grant me slots.

    `writable_root` is a path below the root, without leading slash. `uid`, `gid`, `hostname`: what jobs see as theirs.
    `export_number`: the journal number now; the mirror starts there with nothing known. `clock_ns`: the master's.
    """

    protocol: int
    master: Label
    slots: Slots
    uid: UserId
    gid: UserId
    writable_root: bytes
    number: Count
    clock_ns: int
    hostname: Label = ""


class Leased(Message, frozen=True):
    """`slots` is what was granted, 0 if the worker has none. `clock_ns` is the worker's, taken when it answered."""

    worker: Label
    slots: Slots
    clock_ns: int
    cores: Count


class Run(Message, frozen=True):
    """Run a command at journal number `number`; `changesets` are all after the lease's last one.

    stdout and stderr come as chunks on this stream, each with one byte before it, b"1" or b"2"; with `merge` all of it
    is b"1". `exe`, `search`: as in Invocation. `env` entries are b"NAME=value". `cwd` is absolute, with leading slash.
    `stdin`: the job's standard input is read from the master on demand (ReadStdin); it is a stream, or `stdin_file`
    where that is set. Else it is /dev/null, or closed (`stdin_closed`), or a pipe at its end (`stdin_ended`).

    `contents` are those of small files that have changed and that no worker can have, as of `number`, by their paths.
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
    contents: dict[bytes, bytes] = {}

    def __post_init__(self) -> None:
        """Refuse what execve and chdir cannot be given. A NUL would end a record of what the sandbox is told."""
        if b"\0" in b"".join((*self.argv, *self.env, self.exe, self.cwd)):
            raise ValueError("a NUL byte in a command, its environment or its directory")
        if not self.cwd.startswith(b"/"):
            raise ValueError("a directory without a leading slash")


class Ran(Message, frozen=True):
    """The ActionResult. Times are the worker's clock.

    `changes` are below the writable root only; `inline` has contents up to INLINE_BYTES by their SHA-256, the others
    are fetched with GetBlob. `dropped` names paths written outside the writable root and the temporary directories,
    and sockets inside the root.
    `exec_errno` is not 0 where the command could not be started at all (as execve said); `exit` then is 126 or 127.
    `stdin_offset` is where the job has left a file that was its standard input (-1: not known); `stdin_taken` is how
    much of a stream it has taken.
    """

    exit: Exit
    usage: Usage
    changes: tuple[Change, ...]
    inline: dict[bytes, bytes]
    started_ns: int
    ended_ns: int
    dropped: tuple[bytes, ...] = ()
    exec_errno: Errno = 0
    timed_out: bool = False
    stdin_offset: Offset = -1
    stdin_taken: Count = 0


class GetBlob(Message, frozen=True):
    """Master -> mirror: the content, as chunks on this stream, then Done. The receiver checks the digest."""

    digest: Digest


class Ping(Message, frozen=True):
    """Either way, when a connection was silent for long. Answered by Pong."""


class Pong(Message, frozen=True):
    """`clock_ns` is the answering side's."""

    clock_ns: int


class SetSlots(Message, frozen=True):
    """Mirror -> master: from now on use at most `slots` (the worker shares with another master, or drains)."""

    slots: Slots


# -- mirror -> master -------------------------------------------------------------------------------------------------


class GetDirectory(Message, frozen=True):
    """Everything in one directory. Fails with FsError where there is no such directory."""

    path: bytes


class Directory(Message, frozen=True):
    """All children, as of journal number `number`; a digest is there where the master knows it. `attr`: its own."""

    number: Count
    attr: Attr
    children: dict[bytes, Attr]


class GetFile(Message, frozen=True):
    """The content of the file at `path`, which was shown with `size` and `mtime_ns`.

    Answered by File, with `content` inside for a small file, else as chunks on this stream before the answer; neither
    where its digest is `candidate`: then the worker has it. If the file is not that version any more: Failed(STALE).
    """

    path: bytes
    size: Count
    mtime_ns: int
    candidate: Digest | None = None


class File(Message, frozen=True):
    """The digest of what was sent; the receiver checks it. `content` is None where it came as chunks, or is there."""

    digest: Digest
    content: bytes | None = None


class ReadStdin(Message, frozen=True):
    """A job wants up to `size` bytes of its standard input. Answered by Stdin; no bytes mean its end.

    Of a file, at `offset`. Of a stream (-1), what one read(2) gives; with `peek`, the job may take less of it than it
    is given. It has then taken all that it was given before.
    """

    job: Count
    size: Count
    offset: Offset = -1
    peek: bool = False


class StdinTaken(Message, frozen=True):
    """The job has taken so many bytes of its standard input, all in all."""

    job: Count
    taken: Count


class Stdin(Message, frozen=True):
    """What was read."""

    content: bytes


# -- a request that failed --------------------------------------------------------------------------------------------


class Failure(enum.Enum):
    """A failure says which exception the requesting side raises."""

    FS = "fs"  # FsError: the job's system call fails with errno
    STALE = "stale"  # Stale: that version is gone
    RETRYABLE = "retryable"  # Retryable: try elsewhere
    REFUSED = "refused"  # UserError: a person must act; `detail` is the line to show
    BUG = "bug"  # an unexpected exception there; `detail` is its last line


class Failed(Message, frozen=True):
    """Failed stands in place of a reply. `errno` is set for FS, `reason` for RETRYABLE and REFUSED."""

    kind: Failure
    detail: str
    errno: Errno = 0
    reason: Reason = Reason.NEEDS_A_PERSON


Request = (
    Register
    | Deregister
    | ListWorkers
    | OpenLease
    | Run
    | GetBlob
    | Ping
    | SetSlots
    | GetDirectory
    | GetFile
    | ReadStdin
    | StdinTaken
)
Reply = Registered | Workers | Done | Leased | Ran | Pong | Directory | File | Stdin | Failed
