"""Describe what publishing one job does, so that another process can finish it.

A master writes one *record* before it changes the first of a job's places, and changes the
record's outcome after the last one. The record is the point at which the job has happened. Paths
are relative to the writable root. A path that begins with a slash is outside of it, below a
temporary directory of the machine. Staged names are entries of `.termite-staging`, or of the area
that `area_of` returns.

A record is a header, a body and the number of steps that were carried out (u32), which counts only
if the plan was given up. The header begins with MAGIC, the version of the format (u32) and
the number of the record in its file (u64). Then follow the length of the body (u64), the boot id of
the kernel (36 characters), a SHA-256, and one character of `Outcome`. The SHA-256 is over the
fields before it and the body. The body is a msgpack array, `RedoPlan`.

A file has the newest record and may have older ones, each at a multiple of ALIGNMENT. Therefore a
record that was not written completely has never destroyed the one before it.
"""

import enum
import hashlib
import struct
from dataclasses import dataclass

import msgspec

from termite.engine.errors import RemoteProtocolError
from termite.engine.paths import RESULT_BYTES, check_names, components, is_within
from termite.engine.tree.logic.temporary_names import temporary_above

MAGIC = b"termplan"
VERSION = 4
ALIGNMENT = 512
TOKEN_BYTES = 8
HEADER = struct.Struct("<8sIQQ36s32sc")
SHA_BYTES = 32
OUTCOME_AT = HEADER.size - 1
DONE = struct.Struct("<I")
_OPEN = b"O"  # `value` of an enum takes as long as all other fields of a header


class Outcome(enum.Enum):
    """The state of a record: being carried out, complete, or given up for good."""

    OPEN = _OPEN
    DONE = b"D"
    FAILED = b"F"


class Stood(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The state of an entry that stood at a place before the job's changes."""

    dev: int
    ino: int
    mtime_ns: int
    ctime_ns: int


class Unlock(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="unlock"):
    """Give ourselves all permissions for a directory; a SetDirectory follows at the end."""

    path: bytes


class MakeDirectory(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="mkdir"):
    """Move an empty staged directory to its place, unless a directory stands there.

    If one stood there when the job was prepared, none is staged, and `staged` is empty. `is_new`:
    nothing but a directory of our own may have taken the place meanwhile.
    """

    path: bytes
    staged: bytes
    stood: Stood | None
    is_new: bool = False


class PlaceEntry(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="place"):
    """Rename a staged entry to its place, over whatever stands there.

    `linked` is another name of the same file in the tree, or None. `is_new`: nothing may stand
    there, because it would not be ours.
    """

    path: bytes
    staged: bytes
    stood: Stood | None
    linked: bytes | None = None
    is_new: bool = False


class Trash(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="trash"):
    """Remove the entry with this device and inode, and everything below it but `kept` paths.

    A directory is first moved to the free name `staged`.
    """

    path: bytes
    staged: bytes
    stood: Stood
    kept: tuple[bytes, ...] = ()


class SetAttributes(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="set"):
    """Set the mode and the mtime of an entry that is no directory."""

    path: bytes
    mode: int
    mtime_ns: int
    stood: Stood | None


class SetDirectory(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="setdir"):
    """Set the mode and the mtime of a directory, after all changes in it."""

    path: bytes
    mode: int
    mtime_ns: int


Step = Unlock | MakeDirectory | PlaceEntry | Trash | SetAttributes | SetDirectory


class JobEnd(msgspec.Struct, frozen=True, array_like=True):
    """The end of one job, as its launcher must hear it.

    `pid` is the launcher's process, 0 if that is unknown. `stdin` has the records of the protocol
    that say where the job has left the standard input.
    """

    token: bytes
    pid: int
    code: int
    signal: int
    stdin: bytes


class RedoPlan(msgspec.Struct, frozen=True, array_like=True):
    """The plan of one job.

    `master` is the process that wrote it. `untold` are the ends of earlier jobs that are complete,
    but whose launchers may not know that. `areas` are the directories with staged entries, from
    number 1 on. `inode` is that of the plan file.
    """

    master: int
    job: JobEnd
    steps: tuple[Step, ...]
    untold: tuple[JobEnd, ...] = ()
    areas: tuple[bytes, ...] = ()
    inode: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a plan file, and the position in the file at which it was found.

    `done` is the number of steps that were carried out before the plan was given up. It is at
    `done_at` in the file.
    """

    at: int
    number: int
    boot_id: bytes
    outcome: Outcome
    plan: RedoPlan
    done: int
    done_at: int

    def end_of(self, token: bytes) -> JobEnd | None:
        """Return the end of the job with this token, or None if it is another job."""
        return next((end for end in (self.plan.job, *self.plan.untold) if end.token == token), None)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(RedoPlan).decode


def pack_record(number: int, boot_id: bytes, plan: RedoPlan) -> bytes:
    """Return the record, whose outcome is OPEN."""
    body = _encode(plan)
    head = HEADER.pack(MAGIC, VERSION, number, len(body), boot_id, b"", _OPEN)
    return head[: -SHA_BYTES - 1] + _sha(head, body) + head[-1:] + body + bytes(DONE.size)


def newest_record(content: bytes) -> Record | None:
    """Return the newest complete record of a plan file, or None if it has none.

    Raise RemoteProtocolError if it is complete, but means nothing to this version of termite.
    """
    newest: tuple[int, int, bytes, bytes, bytes, bytes] | None = None
    for at in range(0, len(content), ALIGNMENT):
        if not content.startswith(MAGIC, at) or len(content) - at < HEADER.size:
            continue
        head = content[at : at + HEADER.size]
        _, version, number, length, boot_id, sha, outcome = HEADER.unpack(head)
        body = content[at + HEADER.size : at + HEADER.size + length]
        if len(body) != length or _sha(head, body) != sha:
            continue
        if version != VERSION:
            raise RemoteProtocolError(f"a plan of version {version}")
        if newest is None or number > newest[0]:
            end = at + HEADER.size + length
            newest = number, at, boot_id, outcome, body, content[end : end + DONE.size]
    return _parse(*newest) if newest else None


def _parse(number: int, at: int, boot_id: bytes, outcome: bytes, body: bytes, tail: bytes) -> Record:
    done = DONE.unpack(tail)[0] if len(tail) == DONE.size else 0
    try:
        plan = _decode(body)
        done = min(done, len(plan.steps))
        record = Record(at, number, boot_id, Outcome(outcome), plan, done, at + HEADER.size + len(body))
    except (ValueError, msgspec.MsgspecError) as error:
        raise RemoteProtocolError(f"a plan that cannot be read: {error}") from error
    for path in record.plan.areas:
        _check_place(path)
    for step in record.plan.steps:
        _check_step(step, len(record.plan.areas))
    return record


def _check_step(step: Step, areas: int) -> None:
    """Raise FsError or RemoteProtocolError if a path or a name of the step leads elsewhere."""
    _check_place(step.path)
    if isinstance(step, PlaceEntry) and step.linked is not None:
        _check_place(step.linked)
    if isinstance(step, Trash):
        for path in step.kept:
            _check_place(path)
    if isinstance(step, MakeDirectory | PlaceEntry | Trash) and (step.staged or not isinstance(step, MakeDirectory)):
        check_names((step.staged,))
        if area_of(step.staged) > areas:
            raise RemoteProtocolError(f"a plan without the area of {step.staged!r}")


def _check_place(path: bytes) -> None:
    """Raise FsError or RemoteProtocolError if a path is neither below the root nor temporary."""
    components(path.removeprefix(b"/"), RESULT_BYTES)
    if path.startswith(b"/") and not temporary_above(path[1:]):
        raise RemoteProtocolError(f"a plan for {path!r}")


def place_in_plan(path: bytes, root: bytes) -> bytes:
    """Return a path of the tree in the form that plans have."""
    if not is_within(path, root):
        return b"/" + path
    return path[len(root) + 1 :] if root else path


def area_of(staged: bytes) -> int:
    """Return the number of the area in which a staged name stands, 0 for `.termite-staging`.

    Such a name is LABEL.COUNT or LABEL.COUNT.AREA.
    """
    number = staged.split(b".")[2:]
    return int(number[0]) if len(number) == 1 and number[0].isdigit() else 0


def _sha(head: bytes, body: bytes) -> bytes:
    state = hashlib.sha256(head[: -SHA_BYTES - 1])
    state.update(body)
    return state.digest()
