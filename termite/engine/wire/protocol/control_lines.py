"""Define what a worker and its mirror process say to each other: one JSON object a line.

The worker writes `StartValues` to a pipe when it starts the mirror. After that the mirror sends
`MirrorNotice` lines, and the worker sends `WorkerOrder` lines, over a socket pair. A mirror talks
to the network, so the worker trusts none of its lines before `decode_line` has checked it.
docs/develop/protocol.md, "Control", describes each line.
"""

import json
from typing import TypeVar

import msgspec

from termite.engine.errors import Reason, RemoteProtocolError
from termite.engine.model import Count, JobLimits, JobNetwork, Label, MachineFacts, Seconds, Slots, StoreLimits

LINE_BYTES = 64 * 1024  # of one line without its end; an honest one has a few hundred

S = TypeVar("S", bound=msgspec.Struct)


class StartValues(msgspec.Struct, frozen=True):
    """Everything that a mirror process is started with.

    `socket_fd` is the TCP connection and `control_fd` the socket pair; the mirror inherits both.
    `certificate`, `key` and `authority` are PEM texts. `cache` and `scratch` are directories for
    this mirror alone; if `tmpfs`, scratch is in memory. `sandbox` is the path of termite-sandbox.
    `machine` has the facts of the worker's machine. `store` limits the contents that are kept
    in `cache`. `network` is what jobs get to which a rule gives a network. `limits` hold for each
    job.
    """

    socket_fd: int
    control_fd: int
    certificate: str
    key: str
    authority: str
    worker: str
    cache: str
    scratch: str
    tmpfs: bool
    sandbox: str
    machine: MachineFacts
    log_level: str = "info"
    store: StoreLimits = StoreLimits()
    network: JobNetwork = JobNetwork()
    limits: JobLimits = JobLimits()


class MirrorNotice(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a mirror: a request for a lease or for the log, a count of jobs, or an error.

    `lease` is the number of slots that the master with the name `master` asks for; `user` is
    `user@host`. `running` counts the jobs that run now, and `jobs` all jobs so far. `cpu_s` is the
    CPU time of those that have ended, `job_s` the sum of the times of all, and `busy_s` the time in
    which any ran. `log_after` asks for at most `log_most`
    records of the worker's log with higher numbers; `log_question` is the number of this question.
    `unfit` is the reason why the mirror cannot serve; `detail` and `hint` are for people.
    None means that the line is not about that.
    """

    lease: Slots | None = None
    master: Label = ""
    user: Label = ""
    running: Count | None = None
    jobs: Count = 0
    cpu_s: Seconds = 0.0
    job_s: Seconds = 0.0
    busy_s: Seconds = 0.0
    unfit: Reason | None = None
    detail: str = ""
    hint: str = ""
    log_after: Count | None = None
    log_most: Count = 0
    log_question: Count = 0


class WorkerOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a worker; it sets one or more of these.

    `granted` is the number of slots of a new lease, and `slots` is another number for it later.
    `scratch_bytes` is the size of its scratch space, if that is in memory. `log` has the records
    that the mirror has asked for by the question `log_question`, and `log_number` the number of the
    last record of the log. `refused` is the number of leases that the master has already, if it
    gets no other one. None means that the line is not about that.
    """

    granted: Slots | None = None
    slots: Slots | None = None
    scratch_bytes: Count | None = None
    log_number: Count | None = None
    log: tuple[str, ...] = ()
    log_question: Count = 0
    refused: Count | None = None


class LineSplitter:
    """A splitter of received bytes into lines of at most LINE_BYTES."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, received: bytes) -> None:
        """Add bytes as they come from the socket, in pieces of any size."""
        self._received += received

    def next_line(self) -> bytes | None:
        """Return the next line without its end, or None if more bytes are needed.

        Raise RemoteProtocolError if the line is too long, complete or not; the caller drops the
        connection.
        """
        end = self._received.find(b"\n")
        if (end if end >= 0 else len(self._received)) > LINE_BYTES:
            raise RemoteProtocolError(f"a line has more than {LINE_BYTES} bytes")
        if end < 0:
            return None
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line


def encode_line(message: msgspec.Struct) -> bytes:
    """Return the line, with its end, that says this.

    Other than msgspec's own encoder, this takes paths that are not UTF-8 (surrogates).
    """
    return json.dumps(msgspec.to_builtins(message)).encode() + b"\n"


def decode_line(line: bytes, kind: type[S]) -> S:
    """Return the message in a line.

    Raise RemoteProtocolError if it is not a valid message of that kind; the caller drops the
    connection.
    """
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(str(error)) from error
