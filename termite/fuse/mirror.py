"""Run the mirror process: one lease of one master, one connection, one mount.

The process is pid 1 of its own namespaces, which `termite-sandbox enter` makes. The host never
sees its mount, and when it ends, in whatever way, the mount and all jobs end too. It ends with the
connection, with the worker, or at SIGTERM.
"""

import gc
import logging
import math
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from termite import __version__
from termite.engine.errors import Reason, RemoteProtocolError, Retryable, TermiteError, UserError
from termite.engine.host.descriptors import free_beside_reserve, shortage_text
from termite.engine.host.preflight import check_fuse
from termite.engine.model import WorkerRoom
from termite.engine.paths import allow_deep_paths, check_paths
from termite.engine.private_directories import private_directory
from termite.engine.store.cas import Cas
from termite.engine.store.proofs import ProofTable
from termite.engine.store.store_upkeep import StoreUpkeep
from termite.engine.wire.identity import Identity
from termite.engine.wire.protocol.control_lines import MirrorNotice, StartValues, decode_line
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import (
    PROTOCOL,
    GetBlob,
    GetLog,
    Leased,
    OpenLease,
    Run,
    SetSlots,
    UseTerminal,
)
from termite.engine.wire.transport import Connection, SendChunk, accepted
from termite.fuse.actions import Actions, LeaseParts
from termite.fuse.content.fetch import Fetcher, MirroredFiles
from termite.fuse.kernel_requests import ops, session
from termite.fuse.layers.real_layers import RealLayers
from termite.fuse.layers.warm_generation import WARM_PLACE
from termite.fuse.layers.warm_layer import WarmLayer
from termite.fuse.log_questions import LogQuestions
from termite.fuse.running_jobs import JobTable
from termite.fuse.sandbox.sandboxes import Sandboxes
from termite.fuse.stdin.stdin_pipe import StdinSource
from termite.fuse.view.view_tree import Tree
from termite.fuse.worker_line import WorkerLine

CLEAR_UP_S = 0.1  # from the end of a job to the removal of what it left
LACK_S = 60.0  # from one line of the log about a lack of room to the next of its kind
JOB_DESCRIPTORS = 16  # of this process for one job: pipes, sockets, a pidfd, an epoll, and some of its files

log = logging.getLogger(__name__)


def main() -> None:
    """Run `python -m termite.fuse.mirror FD`; FD is a pipe with the start values."""
    with os.fdopen(int(sys.argv[1]), "rb") as pipe:
        config = decode_line(pipe.read(), StartValues)
    logging.basicConfig(level=config.log_level.upper(), format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("pyfuse3").setLevel(logging.WARNING)  # at level debug it logs every request
    allow_deep_paths()
    # A tree of 100,000 names is no garbage. Searching it for cycles again and again costs more than
    # it frees.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    for fd in (config.socket_fd, config.control_fd):  # no process of a sandbox may inherit them
        os.set_inheritable(fd, False)

    trio.run(serve_mirror, config)


async def serve_mirror(config: StartValues) -> None:
    """Serve until the master or the worker is gone.

    The kernel is answered longest, because jobs that wait for an answer cannot die.
    """
    with private_directory(Path(config.cache) / "warm") as warm_root:
        mirror = MirrorServer(config, WorkerLine(config.control_fd), warm_root)
        try:
            async with trio.open_nursery() as kernel:
                kernel.start_soon(mirror.serve_kernel)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_end_at_signal, nursery.cancel_scope)
                    nursery.start_soon(mirror.listen_to_worker, nursery.cancel_scope)
                    await _serve_master(config, mirror)
                    nursery.cancel_scope.cancel()
                kernel.cancel_scope.cancel()
        finally:
            mirror.close()


async def _serve_master(config: StartValues, mirror: "MirrorServer") -> None:
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=config.socket_fd)))
    identity = Identity(config.certificate, config.key, config.authority)
    try:
        async with accepted(stream, identity, mirror.answer) as connection:
            await mirror.follow(connection)
    except TermiteError as error:
        log.warning("connection-failed reason=%r", str(error))


class MirrorServer:
    """The mirror process; everything for jobs is made when the master opens the lease."""

    def __init__(self, config: StartValues, control: WorkerLine, warm_root: Path) -> None:
        self._config = config
        self._control = control
        self._log_questions = LogQuestions(control)
        self._warm_root = warm_root
        self._slots = 0
        self._granted = trio.Event()
        self._refused_leases = 0  # of the master, which gets no other one
        self._jobs = JobTable()
        self._opening: Connection | None = None
        self._lease: ServedLease | None = None
        self._cas: Cas | None = None
        self._is_mounted = trio.Event()
        self._jobs_changed = trio.Event()
        self._lacks_s: dict[Reason, float] = {}  # when a lack of room was logged last

    def close(self) -> None:
        """Remove the temporary files of this process from the store."""
        if self._cas is not None:
            self._cas.close()

    # -- tasks -------------------------------------------------------------------------------------------------------

    async def follow(self, connection: Connection) -> None:
        """Wait until the connection is lost, or the master has broken the protocol."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_house, nursery.cancel_scope)
                await connection.lost.wait()
                nursery.cancel_scope.cancel()
        finally:
            if self._lease is not None:
                self._control.send_nowait(self._jobs.notice())  # the last jobs may have ended just now
                counts = ",".join(f"{name}:{count}" for name, count in self._lease.parts.statistics().items())
                log.info("lease-ended jobs=%d statistics=%s", self._jobs.started, counts)

    async def listen_to_worker(self, scope: trio.CancelScope) -> None:
        """Obey the orders of the worker, and cancel `scope` when the worker is gone."""
        while (order := await self._control.receive()) is not None:
            if order.scratch_bytes is not None and self._lease is not None:
                self._lease.parts.sandboxes.scratch.set_size(order.scratch_bytes)
            self._log_questions.take(order)
            if order.refused is not None:
                self._refused_leases = order.refused
                self._granted.set()
            slots = order.slots if order.granted is None else order.granted
            if slots is not None:
                await self._set_slots(slots)
        scope.cancel()

    async def serve_kernel(self) -> None:
        """Answer the kernel from the moment there is a mount, until cancelled."""
        await self._is_mounted.wait()
        await session.serve()

    async def answer(self, connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
        """Return the answer to one request of the master.

        Raise RemoteProtocolError if the request has no place here, which drops the connection.
        """
        match message:
            case OpenLease() if self._opening is None:
                check_paths([message.writable_root, *message.temporary])
                self._opening = connection
                return await self._open_lease(connection, message)
            case Run() if self._lease is not None:
                try:
                    return await self._lease.actions.run(message, send_chunk)
                except Retryable as error:
                    self._log_lack(message.job, error)
                    raise
            case GetBlob() if self._lease is not None:
                return await self._lease.actions.send_blob(message, send_chunk)
            case UseTerminal() if self._lease is not None:
                return await self._lease.actions.use_terminal(message)
            case GetLog() if self._lease is not None:
                return await self._log_questions.read(message)
        raise RemoteProtocolError(f"{type(message).__name__} is nothing to ask a mirror now")

    def _log_lack(self, job: int, error: Retryable) -> None:
        """Log, once a minute, that a job has failed because this machine lacks room for it."""
        now_s = trio.current_time()
        if error.reason.deed and now_s - self._lacks_s.get(error.reason, -math.inf) >= LACK_S:
            self._lacks_s[error.reason] = now_s
            log.warning("job-lacked-room job=%d detail=%r reason=%s", job, error.detail, error.reason)

    # -- the lease ---------------------------------------------------------------------------------------------------

    async def _open_lease(self, connection: Connection, request: OpenLease) -> Leased:
        if request.protocol != PROTOCOL:
            raise UserError(
                f"worker {self._config.worker} speaks protocol {PROTOCOL}, this master speaks {request.protocol}",
                hint="install the same version of termite everywhere",
                reason=Reason.OTHER_PROTOCOL,
            )
        try:
            self._lease = await self._set_up(connection, request)
        except (UserError, Retryable, OSError, RuntimeError) as error:
            refusal = _refusal(error)
            self._control.send_nowait(_unfit_notice(refusal))
            raise refusal from error
        slots = min(request.slots, free_beside_reserve() // JOB_DESCRIPTORS)
        if slots < 1:
            refusal = UserError(
                f"worker {self._config.worker} has too few descriptors for a job: {shortage_text()}",
                hint="raise the limit of open files of termite-worker (ulimit -Hn)",
                reason=Reason.NO_RESOURCES,
            )
            self._control.send_nowait(_unfit_notice(refusal))
            raise refusal
        connection.on_answered = self._lease.parts.sandboxes.prepare  # not before an answer: somebody waits for that
        self._is_mounted.set()
        self._control.ask_nowait(MirrorNotice(lease=slots, master=request.master, user=request.user))
        await self._granted.wait()
        if self._refused_leases:
            raise UserError(
                f"worker {self._config.worker} gives one master at most {self._refused_leases} leases, which it has",
                hint="end other masters of this name, or wait until their leases have ended",
                reason=Reason.NO_RESOURCES,
            )
        log.info("lease-opened master=%s slots=%d", request.master, self._slots)
        room = _room(self._config)
        return Leased(self._config.worker, self._slots, time.time_ns(), self._config.machine, __version__, room)

    async def _set_up(self, connection: Connection, request: OpenLease) -> "ServedLease":
        check_fuse(root=False)
        config, scratch = self._config, Path(self._config.scratch)
        own = (request.uid, request.gid, *request.groups)
        sandboxes = Sandboxes(Path(config.sandbox), scratch, config.tmpfs, config.network, config.limits, own)
        sandboxes.setup()
        mount_point = scratch / "mirror"  # in the scratch space, which jobs cannot see
        mount_point.mkdir(mode=0o700)
        (scratch / WARM_PLACE).symlink_to(self._warm_root)
        proofs = ProofTable(Path(config.cache) / "proofs", request.owner)
        cas = self._cas = Cas(Path(config.cache) / "cas", config.store.max_bytes, config.store.max_files, proofs)
        tree = Tree(request.writable_root, request.number)
        fetcher = Fetcher(connection, tree, cas)
        layers = RealLayers(tree, cas, fetcher, sandboxes.scratch)
        warm = WarmLayer(tree, cas, self._warm_root, layers.note_opened)
        stdin_source = StdinSource(connection)
        files = MirroredFiles(tree, cas, fetcher)
        operations = ops.MirrorOperations(files, self._jobs, stdin_source, warm)
        session.mount(operations, mount_point)
        await sandboxes.wait_ready()
        parts = LeaseParts(files, layers, warm, sandboxes, stdin_source, operations, self._config.network.is_given)
        return ServedLease(parts, Actions(request, mount_point, parts, self._jobs, self._note_jobs_changed))

    async def _set_slots(self, slots: int) -> None:
        self._slots = slots
        if self._lease is not None:
            self._lease.actions.slots.set_count(slots)
            self._lease.parts.sandboxes.keep_ready(slots)
        if self._granted.is_set() and self._opening is not None:
            with suppress(TermiteError):  # the lease ends, and the next one gets `_slots`
                await self._opening.request(SetSlots(slots))
        self._granted.set()

    # -- housekeeping ------------------------------------------------------------------------------------------------

    def _note_jobs_changed(self) -> None:
        self._jobs_changed.set()

    async def _keep_house(self, scope: trio.CancelScope) -> None:
        """Run the tasks beside the jobs, from the moment the lease is open."""
        await self._is_mounted.wait()
        assert self._lease is not None
        parts = self._lease.parts
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._clear_up, parts)
            nursery.start_soon(parts.layers.keep_fetching)
            nursery.start_soon(parts.sandboxes.keep_watching)
            upkeep = StoreUpkeep(parts.files.cas, lambda: not self._jobs.running)
            nursery.start_soon(upkeep.keep_within_limits)
            nursery.start_soon(upkeep.keep_sound)
            nursery.start_soon(parts.warm.keep_sealing)
            await parts.files.fetcher.broken.wait()
            scope.cancel()

    async def _clear_up(self, parts: LeaseParts) -> None:
        """Remove what jobs leave behind.

        This is not done after each job, because it costs as much as a job.
        """
        while True:
            await self._jobs_changed.wait()
            await trio.sleep(CLEAR_UP_S)  # first, so that it does not delay the next job
            self._jobs_changed = trio.Event()
            self._control.send_nowait(self._jobs.notice())
            _reap()
            parts.layers.discard_unused()
            parts.sandboxes.scratch.clear_up()
            await ops.drop_views([*parts.files.tree.pop_unused(), *self._jobs.pop_inputs()])


@dataclass(frozen=True, slots=True)
class ServedLease:
    """A lease that is open: what its jobs share, and the actions that its master may ask for."""

    parts: LeaseParts
    actions: Actions


def _room(config: StartValues) -> WorkerRoom:
    """Return what is free on the worker, or nothing known if its disks do not say."""
    try:
        store, scratch = os.statvfs(config.cache), os.statvfs(config.scratch)
    except OSError:
        return WorkerRoom()
    store_free_bytes, scratch_free_bytes = (disk.f_bavail * disk.f_frsize for disk in (store, scratch))
    return WorkerRoom(config.store.max_bytes, store_free_bytes, store.f_favail, scratch_free_bytes)


async def _end_at_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()


def _reap() -> None:
    """Reap the children of processes that died: we are pid 1, so they become ours."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _unfit_notice(refusal: UserError) -> MirrorNotice:
    return MirrorNotice(unfit=refusal.reason, detail=refusal.message, hint=refusal.hint)


def _refusal(error: Exception) -> UserError:
    """Return the error that tells the user why this worker cannot serve."""
    if isinstance(error, UserError):
        return error
    return UserError(
        f"this worker cannot run jobs: {error}",
        hint="see the worker's log; jobs need /dev/fuse, user namespaces and a free scratch directory",
        reason=Reason.UNFIT_WORKER,
    )


if __name__ == "__main__":
    main()
