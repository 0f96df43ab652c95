"""Fetch the contents of a job's results to the master's machine, and publish them.

All contents must be complete before the first file of the tree is changed.
"""

import errno
import functools
import hashlib
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import trio

from termite.engine.decide.logic.attribute_programs import may_set_modes
from termite.engine.errors import FsError, HalfPublished, Reason, Retryable, TermiteError, first_error
from termite.engine.fleet.lease import Lease
from termite.engine.launch.connection import Launcher
from termite.engine.loop.long_work import compute
from termite.engine.master.job import Job
from termite.engine.master.shared import Master
from termite.engine.model import Change, Digest, Exit, Phase
from termite.engine.tree.logic.redo_plan import JobEnd
from termite.engine.tree.logic.times import Timing
from termite.engine.tree.master_tree import MasterTree
from termite.engine.tree.publishing.kept_plans.plan_file import is_alive
from termite.engine.tree.publishing.preparation import Contents
from termite.engine.tree.publishing.publication import Ticket
from termite.engine.tree.publishing.staging import StagedWriter, discard_all
from termite.engine.wire.protocol.frames import parse_piece
from termite.engine.wire.protocol.messages import Ran

RESERVE_SHARE = 0.1  # of the free space on the user's disk that no result may take
MAX_FETCHES = 4  # of one job at a time: they fill a connection, and other jobs still get their share


async def publish_results(master: Master, job: Job, lease: Lease, ran: Ran, timing: Timing) -> tuple[bytes, ...]:
    """Fetch the results, and publish them in the user's tree.

    Return the paths that another job wrote with other contents at the same time. Raise Conflict if
    the job must run again. Raise Retryable if the contents cannot be fetched, FsError if they
    cannot be written, and HalfPublished if they can no longer be written completely. Raise
    RemoteProtocolError if the worker has broken the protocol.
    """
    if not ran.changes or ran.exec_errno:  # a command that was not executed has changed nothing
        return ()
    job.phase = Phase.FETCHING
    async with FetchedContents(lease, ran, master.tree) as contents:
        # The plan tells how the standard input is left, so nothing may be read after it.
        await job.launcher.stop_reading()
        job.stdin.finish(ran.stdin_offset, ran.stdin_taken)
        return await publish_contents(master, job, ran.changes, contents, timing, ran.exit)


async def publish_contents(
    master: Master, job: Job, changes: Sequence[Change], contents: Contents, timing: Timing, exit: Exit
) -> tuple[bytes, ...]:
    """Publish results whose contents are here, and return and raise as `publish_results` does."""
    end = JobEnd(job.request.token, job.launcher.pid, exit.code, exit.signal, job.launcher.stdin_end)
    # Without the job itself: it has the ticket, and would wait for the collector of cycles.
    launcher, umask = job.launcher, job.request.umask
    job.ticket = Ticket(end, lambda: _is_told(launcher), job.output.show_held_nowait, umask=umask)
    job.ticket.wait_for_reader = launcher.push
    job.ticket.is_left = lambda: launcher.gone is not None
    job.ticket.may_set_modes = functools.partial(may_set_modes, job.command.text if job.command else "")
    try:
        published = await master.tree.publish(changes, contents, timing, job.ticket)
    except HalfPublished:
        raise
    except TermiteError as error:
        if job.ticket.has_happened:  # to the callers these errors mean that nothing was changed
            raise RuntimeError(f"after the plan was written: {error!r}") from error
        raise
    master.authors.note(published.number, job.id)
    job.has_met_others |= bool(published.appended)
    return published.conflicts


def _is_told(launcher: Launcher) -> bool:
    """Return whether the launcher cannot ask the plan for its exit any more.

    One that has lost the connection can, as long as its process lives.
    """
    return launcher.was_sent_exit or (launcher.gone is not None and not is_alive(launcher.pid))


class FetchedContents:
    """A context with every content that the changes of `ran` need, by SHA-256.

    Small contents are `bytes`, others are staged files. If the body fails, the staged files are
    removed. A generator would be shorter, but slower, and every job with results comes here.
    """

    __slots__ = ("_lease", "_ran", "_tree", "_writers")

    def __init__(self, lease: Lease, ran: Ran, tree: MasterTree) -> None:
        self._lease, self._ran, self._tree = lease, ran, tree
        self._writers: list[StagedWriter] = []

    async def __aenter__(self) -> Mapping[bytes, bytes | Path]:
        """Fetch them.

        Raise Retryable if the connection is lost or the worker's answer is wrong,
        RemoteProtocolError if it breaks the protocol, and FsError if the disk refuses or has too
        little space.
        """
        ran = self._ran
        digests = await compute(len(ran.changes), lambda: _digests(ran.changes))
        contents, missing = _sort_inline(self._lease, ran, digests)
        if missing:
            try:
                await _fetch_all(self._lease, self._tree, missing, contents, self._writers)
            except BaseException:
                discard_all(self._writers)
                raise
        return contents

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            discard_all(self._writers)


def _sort_inline(lease: Lease, ran: Ran, digests: Iterable[Digest]) -> tuple[dict[bytes, bytes | Path], list[Digest]]:
    """Return the contents that came with the answer, and the digests of the others."""
    contents: dict[bytes, bytes | Path] = {}
    missing: list[Digest] = []
    for digest in digests:
        inline = ran.inline.get(digest.sha256)
        if inline is None:
            missing.append(digest)
        elif len(inline) != digest.size or hashlib.sha256(inline).digest() != digest.sha256:
            raise Retryable(Reason.BAD_ANSWER, f"{lease.worker} sent contents that do not match their digest")
        else:
            contents[digest.sha256] = inline
    return contents, missing


async def _fetch_all(
    lease: Lease,
    tree: MasterTree,
    missing: Sequence[Digest],
    contents: dict[bytes, bytes | Path],
    writers: list[StagedWriter],
) -> None:
    room = trio.Semaphore(MAX_FETCHES)
    # A worker may send more than the disk has, and fill it while other programs need space. Nobody
    # knows beforehand how much of a content is holes.
    space = _Space(int((1 - RESERVE_SHARE) * tree.free_bytes()))

    async def fetch(digest: Digest) -> None:
        async with room:
            writer = tree.staging_file()
            writers.append(writer)
            contents[digest.sha256] = await _fetch(lease, digest, writer, space)

    with first_error():
        async with trio.open_nursery() as nursery:
            for digest in missing:
                nursery.start_soon(fetch, digest)


class _Space:
    """The bytes that the contents of one job may take on the user's disk."""

    def __init__(self, left_bytes: int) -> None:
        self._left_bytes = left_bytes

    def take(self, size_bytes: int) -> None:
        """Take some of it. Raise FsError if it is not enough."""
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise FsError(errno.ENOSPC, b"")


async def _fetch(lease: Lease, digest: Digest, writer: StagedWriter, space: _Space) -> Path:
    received = 0

    async def write(chunk: bytes) -> None:
        nonlocal received
        piece = parse_piece(chunk)
        received += piece if isinstance(piece, int) else len(piece)
        if received > digest.size:  # it may never end, and would fill the user's disk
            raise Retryable(Reason.BAD_ANSWER, f"{lease.worker} sent more than the {digest.size} bytes it promised")
        if isinstance(piece, int):
            writer.skip(piece)
        else:
            space.take(len(piece))
            writer.write(piece)

    await lease.fetch(digest, write)
    return writer.finish(digest)


def _digests(changes: Iterable[Change]) -> list[Digest]:
    """Return the digests of all contents that the changes need, each once."""
    needed: dict[bytes, Digest] = {}
    for change in changes:
        attr = change.attr
        if attr is None or not change.content or change.link_to is not None or not stat.S_ISREG(attr.mode):
            continue
        if attr.digest is None:
            raise Retryable(Reason.BAD_ANSWER, f"a result has no digest: {change.path!r}")
        needed[attr.digest.sha256] = attr.digest
    return list(needed.values())
