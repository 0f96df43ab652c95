"""Run one small job on a worker as a master does: through a lease, with a tree of this machine.

The job reads a file of the tree, so that the worker has to ask us back, and writes the same bytes
into another one. Both are larger than a packet of any network. Nothing is written to the tree.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from termite import __version__
from termite.cli.doctor.finding import Finding, Level
from termite.engine.errors import Reason, Retryable, TermiteError, UserError
from termite.engine.fleet.lease import Lease
from termite.engine.master.mirror_requests import MirrorRequests
from termite.engine.model import WorkerRoom
from termite.engine.paths import tree_path
from termite.engine.sparse_content import digest_of
from termite.engine.tree.master_tree import MasterTree, TreeConfig
from termite.engine.wire.addresses import join_address
from termite.engine.wire.authority import Role, mint
from termite.engine.wire.owner import OWNER_BYTES, owner_key
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import PROTOCOL, Done, OpenLease, Ran, Run, SetSlots
from termite.engine.wire.transport import Connection, SendChunk, dial

CONNECT_S = 3.0  # a machine that is off, or behind a firewall, answers nothing
ANSWER_S = 5.0  # with the handshake, in which the worker starts a process
JOB_S = 15.0  # the lease included
NOTED_SKEW_S = 0.25  # of the clocks; from 1 s on, a master refuses the worker
GIVEN = (b"what the doctor gives " * 1000)[:20_000]
LITTLE_ROOM_BYTES = 1024**3
COMMAND = b'read line <given && printf %s "$line" >made && echo well'


@dataclass(frozen=True, slots=True)
class TrialTree:
    """The tree of the doctor's jobs."""

    path: Path
    tree: MasterTree
    owner: bytes = field(default_factory=lambda: os.urandom(OWNER_BYTES))


@contextmanager
def trial_tree(directory: Path) -> Iterator[TrialTree]:
    """Make the tree in a new directory. Raise UserError or OSError if that is impossible."""
    directory.mkdir(0o700)
    (directory / "given").write_bytes(GIVEN + b"\n")
    tree = MasterTree(TreeConfig(tree_path(directory), shares_temporary=False))
    try:
        yield TrialTree(directory, tree)
    finally:
        tree.close()


@dataclass(frozen=True, slots=True)
class Patient:
    """A daemon to try: `area` stands for it in findings, and `host` and `port` are its address.

    A worker that drains takes no jobs.
    """

    area: str
    name: str
    host: str
    port: int
    is_draining: bool = False


async def try_worker(patient: Patient, secret: bytes, trial: TrialTree) -> list[Finding]:
    """Run the job on a worker, and return what was found.

    A machine that is off costs CONNECT_S, a worker that stands still costs ANSWER_S. In all, this
    takes ANSWER_S + JOB_S at most.
    """
    lease = Lease(patient.name, trial.tree.number, trio.current_time())
    requests = MirrorRequests(trial.tree, {})
    found: list[Finding] = []

    async def serve(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        if isinstance(message, SetSlots):
            return Done()
        return await requests.answer(lease, message, send_chunk)

    is_connected = False
    try:
        with trio.move_on_after(ANSWER_S) as patience:
            identity = mint(secret, "doctor", Role.CLIENT)
            async with dial(patient.host, patient.port, identity, serve, CONNECT_S) as connection:
                is_connected = True
                patience.deadline = trio.current_time() + JOB_S
                found += await _lease_findings(patient, lease, connection, trial)
                found.append(await _job_finding(patient, lease, trial))
    except TermiteError as error:
        return [*found, _failure(patient, error, is_connected=is_connected)]
    if patience.cancelled_caught and is_connected:
        text = f"the job has not ended in {JOB_S:.0f} s, or its results do not come back"
        return [*found, _late(patient.area, "job", text)]
    if patience.cancelled_caught:
        return [_late(patient.area, "reach", f"it accepts connections, and does not answer in {ANSWER_S:.0f} s")]
    return found


async def _lease_findings(patient: Patient, lease: Lease, connection: Connection, trial: TrialTree) -> list[Finding]:
    area = patient.area
    began_s = trio.current_time()
    await lease.open(connection, _open_message(patient, lease, trial))
    took_ms = 1000 * (trio.current_time() - began_s)
    reached = f"it answers at {join_address(patient.host, patient.port)}, and opened a lease in {took_ms:.0f} ms"
    findings = [Finding(area, "reach", Level.OK, reached), clock_finding(area, lease.offset_ns)]
    if lease.release not in ("", __version__):
        findings.append(release_finding(area, lease.release))
    if lease.room.store_max_bytes:
        findings.append(room_finding(area, lease.room))
    return findings


async def _job_finding(patient: Patient, lease: Lease, trial: TrialTree) -> Finding:
    area = patient.area
    if not lease.slots and patient.is_draining:
        mend = f"termite-ctl undrain {area.removeprefix('worker ')} -coordinator HOST -secret FILE"
        return Finding(area, "job", Level.WARNING, "no job was tried: it drains", mend)
    if not lease.slots:
        return Finding(area, "job", Level.WARNING, "no job was tried: other masters have all slots", "try again later")
    said = bytearray()

    async def take(chunk: bytes) -> None:
        said.extend(chunk[1:])

    began_s = trio.current_time()
    ran = await lease.run(_run_message(lease, trial), take)
    took_ms = 1000 * (trio.current_time() - began_s)
    if wrong := _wrong_in(ran, bytes(said), trial):
        return Finding(area, "job", Level.FAILURE, f"a job ran, but {wrong}", _LOG)
    return Finding(area, "job", Level.OK, f"a job ran in {took_ms:.0f} ms, and its result came back")


_LOG = "read the worker's log, and run termite-ctl doctor there"


def _wrong_in(ran: Ran, said: bytes, trial: TrialTree) -> str:
    """Return what is wrong with the end of the job, or "" if nothing is."""
    if ran.exit.signal or ran.exit.code:
        return f"it ended with {ran.exit.signal or ran.exit.code}: {said.decode(errors='replace').strip()}"
    made = tree_path(trial.path / "made")
    digests = {change.path: change.attr.digest for change in ran.changes if change.attr}
    if (
        said != b"well\n"
        or digests.get(made) != digest_of(GIVEN)
        or len(ran.inline.get(digest_of(GIVEN).sha256, b"")) != len(GIVEN)
    ):
        return "its output or its result is not what it has written"
    return ""


def _open_message(patient: Patient, lease: Lease, trial: TrialTree) -> OpenLease:
    host = os.uname().nodename
    return OpenLease(
        *(PROTOCOL, f"{host}:doctor-{os.getpid()}", 1, os.getuid(), os.getgid()),
        writable_root=tree_path(trial.path),
        number=lease.cursor,
        clock_ns=time.time_ns(),
        hostname=host,
        owner=owner_key(trial.owner, join_address(patient.host, patient.port)),
    )


def _run_message(lease: Lease, trial: TrialTree) -> Run:
    shell = b"/bin/sh"
    number = trial.tree.drain()
    return Run(
        *(1, number, trial.tree.changesets_since(lease.cursor), (shell, b"-c", COMMAND), shell, False),
        env=(b"PATH=/usr/bin:/bin",),
        cwd=os.fsencode(trial.path),
        umask=0o022,
        stdin=False,
        merge=False,
    )


# -- findings ---------------------------------------------------------------------------------------------------------


def clock_finding(area: str, offset_ns: int) -> Finding:
    """Judge the difference of two clocks; `offset_ns` is ours minus theirs."""
    skew_s = -offset_ns / 1e9
    text = f"its clock differs by {1000 * skew_s:+.0f} ms"
    if abs(skew_s) < NOTED_SKEW_S:
        return Finding(area, "clock", Level.OK, text)
    level = Level.FAILURE if abs(skew_s) > 1 else Level.WARNING
    return Finding(area, "clock", level, f"its clock differs by {skew_s:+.1f} s", _SET_CLOCKS)


_SET_CLOCKS = "as root on both machines: timedatectl set-ntp true"
_ONE_VERSION = "install one version of termite on every machine"
_REFUSALS = {
    Reason.CLOCKS_DIFFER: ("clock", _SET_CLOCKS),
    Reason.OTHER_PROTOCOL: ("version", _ONE_VERSION),
    Reason.NOT_TRUSTED: ("secret", "copy one secret file to every machine"),
}


def release_finding(area: str, release: str) -> Finding:
    """Return the warning that a daemon has another version than ours."""
    text = f"it runs termite {release}, and this is {__version__}"
    return Finding(area, "version", Level.WARNING, text, _ONE_VERSION)


def room_finding(area: str, room: WorkerRoom) -> Finding:
    """Judge the disk of a worker's store, and its scratch space."""
    gib = 1024**3
    text = (
        f"its store may have {room.store_max_bytes / gib:.1f} GiB, {room.store_free_bytes / gib:.1f} GiB and "
        f"{room.store_free_files} inodes are free; scratch space {room.scratch_free_bytes / gib:.1f} GiB"
    )
    is_little = min(room.store_free_bytes, 8 * room.scratch_free_bytes) < LITTLE_ROOM_BYTES
    mend = "there: make room on the disk of -cachedir and -tmpdir, or give termite-worker others"
    return Finding(area, "cache", Level.WARNING if is_little else Level.OK, text, mend)


def _failure(patient: Patient, error: TermiteError, *, is_connected: bool) -> Finding:
    address = join_address(patient.host, patient.port)
    if isinstance(error, UserError):
        return refusal_finding(patient.area, error, "job", _LOG)
    if is_connected:
        deed = error.reason.deed if isinstance(error, Retryable) else ""
        return Finding(patient.area, "job", Level.FAILURE, str(error), deed or _LOG)
    return Finding(
        patient.area, "reach", Level.FAILURE, f"{address} cannot be reached: {error}", reach_mend(patient, error)
    )


def refusal_finding(area: str, error: UserError, about: str, mend: str) -> Finding:
    """Return the failure that a daemon's refusal means. Other reasons get `about` and `mend`."""
    about, mend = _REFUSALS.get(error.reason, (about, error.hint or mend))
    return Finding(area, about, Level.FAILURE, error.message, mend)


def reach_mend(patient: Patient, error: TermiteError) -> str:
    """Return what to do if nobody answers at an address."""
    if isinstance(error, Retryable) and error.reason is Reason.NO_RESOURCES:
        return "ulimit -n 1024, and run the doctor again"
    return (
        f"see that the daemon runs there, that the firewalls let TCP port {patient.port} through both ways "
        f"(as root: nft insert rule inet filter input tcp dport {patient.port} accept), and that the routes lead back"
    )


def _late(area: str, about: str, text: str) -> Finding:
    mend = "there: pkill -CONT termite-worker if somebody stopped it, or restart it; see its log and its load"
    return Finding(area, about, Level.FAILURE, text, mend)
