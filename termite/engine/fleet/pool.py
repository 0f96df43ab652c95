"""The leases that a master holds, and the jobs that wait for a slot.

`run` opens and closes leases: it opens them when jobs wait, and closes those that were idle for a
while. A job takes a slot with `async with pool.slot() as lease`.
"""

import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Collection, Mapping

import trio

from termite.engine.errors import ConnectionLost, Reason, Retryable, TermiteError, UserError
from termite.engine.fleet.coordinator_link import CoordinatorLink
from termite.engine.fleet.lease import Lease, Traffic
from termite.engine.fleet.logic.known_workers import SILENCE_S, Fleet, LeaseWish
from termite.engine.fleet.logic.lease_choice import choose_lease
from termite.engine.fleet.logic.pool_config import PoolConfig
from termite.engine.fleet.silences import SilentLeases
from termite.engine.fleet.trouble import Trouble, trouble_of
from termite.engine.wire.addresses import split_address
from termite.engine.wire.authority import Role, mint
from termite.engine.wire.identity import Identity
from termite.engine.wire.owner import owner_key
from termite.engine.wire.protocol.fleet_messages import Workers
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import PROTOCOL, Done, OpenLease, SetSlots
from termite.engine.wire.transport import Connection, SendChunk, dial

REFUSED_REST_S = 60.0  # pause for a worker that was refused twice for one reason: it needs a person
SHORTEST_KEEPALIVE_S = 0.02  # with a keepalive of 0, a lease in use would otherwise be checked without pause
FAILURES_IN_A_ROW = 3  # then a lease is retired; one or two failures may be the fault of their jobs
OUTDATED_CHANGES = 20_000  # a lease that lags by more changes is replaced: the mirror of a new one starts empty

log = logging.getLogger(__name__)

Answer = Callable[[Lease, Message, SendChunk], Awaitable[Message]]


class NoWorker(TermiteError):
    """An error for the master, which runs the job locally: no worker is available.

    No worker has a slot, and none is expected to have one soon. The text is the last thing that
    went wrong.
    """


class _JobSlot:
    """The slot of one job while it runs.

    A generator would be shorter, but slower, and every job that goes to a worker comes here.
    """

    __slots__ = ("_avoid", "_lease", "_pool", "_unfit")

    def __init__(self, pool: "Pool", avoid: Collection[str], unfit: Collection[str]) -> None:
        self._pool = pool
        self._avoid = avoid
        self._unfit = unfit

    async def __aenter__(self) -> Lease:
        self._lease = await self._pool.take(self._avoid, self._unfit)
        return self._lease

    async def __aexit__(self, *_: object) -> None:
        self._pool.give_back(self._lease)


class _Waiter:
    """A job that waits for a slot."""

    def __init__(self, avoid: Collection[str], unfit: Collection[str]) -> None:
        self.avoid, self.unfit, self.since = avoid, unfit, trio.current_time()
        self.lease: Lease | None = None
        self.woken = trio.lowlevel.ParkingLot()


class Pool:
    """The pool of a master's leases, and the queue of the jobs that wait for a slot."""

    def __init__(self, config: PoolConfig, number: Callable[[], int], answer: Answer) -> None:
        """Start without leases. `number` returns the journal's present number.

        `answer` answers the requests of mirrors.
        """
        self._config = config
        self._number = number
        self._answer = answer
        self._fleet = Fleet(config.slots, trio.current_time(), config.machine.architecture)
        self._leases: list[Lease] = []
        # A lease that is being opened counts too: its mirror will start at the number in OpenLease.
        self._opening_or_open: list[Lease] = []
        self._waiters: list[_Waiter] = []
        self._wanted = trio.lowlevel.ParkingLot()
        self._logged_refusals: set[str] = set()
        self._refusals: dict[str, Reason] = {}  # the reason for which a worker was refused the last time, by name
        self._ended = Traffic()
        self.trouble: Trouble | None = None  # the last one, which may be the reason that no worker is available
        self._unreachable: Trouble | None = None  # the last one of the coordinator
        self.silences = SilentLeases()
        self.coordinator = CoordinatorLink(config.coordinator, config.secret, config.master)

    async def run(self) -> None:
        """Follow the coordinator's list and open leases for waiting jobs, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.coordinator.follow, self._take_workers, self._note_unreachable)
            while True:
                now = trio.current_time()
                for wish in self._fleet.wishes(len(self._waiters), now):
                    nursery.start_soon(self._hold, wish)
                retry = self._fleet.next_retry(now) if self._waiters else None
                with trio.move_on_at(retry if retry is not None else math.inf):
                    await self._wanted.park()

    def slot(self, avoid: Collection[str] = (), unfit: Collection[str] = ()) -> _JobSlot:
        """Return a context manager that waits for a slot, holds it, and gives it back.

        Its value is the lease. A worker in `avoid` is only taken if there is no other worker, and
        one in `unfit` never. Entering raises NoWorker if no worker can be expected.
        """
        return _JobSlot(self, avoid, unfit)

    def failed(self, lease: Lease, error: Retryable) -> None:
        """Record that a job of this lease failed through termite, not through its command.

        After FAILURES_IN_A_ROW the lease is retired, and the worker's pause must end before it gets
        a new one. Otherwise a worker that fails immediately, for example with a full disk, would
        always be free and get every job.
        """
        self.trouble = Trouble(error.reason, str(error))
        self._fleet.failed(lease.worker, trio.current_time())
        lease.failures += 1
        if lease.failures >= FAILURES_IN_A_ROW:
            self.retire(lease)

    def succeeded(self, lease: Lease) -> None:
        """Record that a job of this lease came back, with whatever exit code."""
        self._fleet.succeeded(lease.worker)
        self.trouble = None
        lease.failures = 0

    def retire(self, lease: Lease) -> None:
        """Give no more jobs to this lease, and close it when its last job ends."""
        lease.is_retired = True
        lease.changed.unpark_all()

    def oldest_cursor(self) -> int | None:
        """Return the journal number up to which all mirrors are up to date.

        Return None if there is no lease and none is being opened.
        """
        return min((lease.cursor for lease in self._opening_or_open), default=None)

    @property
    def leases(self) -> tuple[Lease, ...]:
        """The leases that are open now."""
        return tuple(self._leases)

    def traffic(self) -> Traffic:
        """Return the traffic of all leases since the start, including closed ones."""
        whole = Traffic(self._ended.counts.copy(), self._ended.messages.copy())
        for lease in self._leases:
            whole.add(lease)
        return whole

    @property
    def waiting(self) -> int:
        """The number of jobs that wait for a slot."""
        return len(self._waiters)

    @property
    def refusals(self) -> Mapping[str, Reason]:
        """The reasons for which workers refused the last lease, by their names."""
        return self._refusals

    @property
    def fleet(self) -> Fleet:
        """The known workers, for reports."""
        return self._fleet

    # -- slots --------------------------------------------------------------------------------------------------------

    async def take(self, avoid: Collection[str], unfit: Collection[str] = ()) -> Lease:
        """Wait for a slot, and return its lease. The caller must give the slot back.

        Raise NoWorker as `slot` does.
        """
        if not self._waiters and not avoid and not unfit and (lease := choose_lease(self._leases, avoid)) is not None:
            lease.running += 1
            return lease
        waiter = _Waiter(avoid, unfit)
        self._waiters.append(waiter)
        try:
            self._grant()
            while waiter.lease is None:
                ends = self._fleet.patience_ends(waiter.since, now := trio.current_time())
                if unfit:  # other leases give no hope
                    ends = min(ends, waiter.since + SILENCE_S)
                if now >= ends or not self._fleet.is_worker_expected(now):
                    raise NoWorker(self.trouble.text if self.trouble else "none is registered, or none answers")
                self._wanted.unpark_all()
                with trio.move_on_at(min(self._fleet.expected_until, ends)):
                    await waiter.woken.park()
        except BaseException:
            if waiter.lease is not None:
                self.give_back(waiter.lease)
            else:
                self._waiters.remove(waiter)
            raise
        return waiter.lease

    def give_back(self, lease: Lease) -> None:
        """Give a slot back, and grant it to the next waiting job."""
        lease.running -= 1
        lease.idle_since = trio.current_time()
        if not lease.running and (lease.is_retired or not lease.slots):
            lease.changed.unpark_all()
        self._grant()

    def _grant(self) -> None:
        for waiter in tuple(self._waiters):
            if not any(lease.is_open and lease.running < lease.slots for lease in self._leases):
                break
            fit = [lease for lease in self._leases if lease.worker not in waiter.unfit]
            lease = choose_lease(fit, waiter.avoid)
            if lease is not None:
                lease.running += 1
                waiter.lease = lease
                self._waiters.remove(waiter)
                waiter.woken.unpark_all()

    # -- leases -------------------------------------------------------------------------------------------------------

    async def _hold(self, wish: LeaseWish) -> None:
        """Open one lease, and hold it until it is idle, retired or lost."""
        name = wish.worker.name
        lease = Lease(name, self._number(), trio.current_time())

        async def serve(connection: Connection, message: Message, send_chunk: SendChunk) -> Message:
            if isinstance(message, SetSlots):
                self._set_slots(lease, message.slots)
                return Done()
            return await self._answer(lease, message, send_chunk)

        granted, rest_s = 0, 0.0
        self._opening_or_open.append(lease)
        try:
            host, port = split_address(wish.worker.address, 0)
            async with dial(host, port, self._identity(), serve) as connection:
                granted = await lease.open(connection, self._open_message(wish, lease))
                self._refusals.pop(name, None)
                if granted:
                    await self._keep(lease, connection, granted)
        except Exception as error:  # around one lease: its jobs are retried, and all other leases go on
            rest_s = self._note_failure(name, error)
            if granted:
                self._fleet.broke(name, trio.current_time())
        finally:
            self._opening_or_open.remove(lease)
        if not granted:
            self._fleet.refused(name, trio.current_time(), rest_s)
        self._wanted.unpark_all()

    async def _keep(self, lease: Lease, connection: Connection, granted: int) -> None:
        self._fleet.opened(lease.worker, granted)
        self._leases.append(lease)
        log.info("lease-opened lease=%s slots=%d", lease.worker, granted)
        try:
            self._grant()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_loss, lease, connection)
                nursery.start_soon(self.silences.watch, lease, connection.silence)
                await self._wait_until_idle(lease)
                nursery.cancel_scope.cancel()
        finally:
            lease.is_retired = True
            self._leases.remove(lease)
            self._ended.add(lease)
            self._fleet.closed(lease.worker, granted, trio.current_time())
            log.info("lease-closed lease=%s lost=%s", lease.worker, connection.lost.is_set())
        if connection.lost.is_set():
            raise ConnectionLost(f"worker {lease.worker} is gone")

    async def _watch_loss(self, lease: Lease, connection: Connection) -> None:
        await connection.lost.wait()
        self.retire(lease)

    async def _wait_until_idle(self, lease: Lease) -> None:
        # The end of a job does not wake this task. When the keepalive is over, the task checks
        # whether a job has run meanwhile.
        while lease.is_open or lease.running:
            now = trio.current_time()
            is_over = now >= lease.idle_since + self._config.keepalive_s or self._fleet.is_drained(lease.worker)
            if not lease.running and is_over:
                return
            since = now if lease.running else lease.idle_since
            with trio.move_on_at(since + max(self._config.keepalive_s, SHORTEST_KEEPALIVE_S)):
                await lease.changed.park()

    def _set_slots(self, lease: Lease, slots: int) -> None:
        # A lease with no slots is kept: the worker may grant it slots again later.
        lease.slots = max(slots, 0)
        lease.changed.unpark_all()
        self._grant()

    def _identity(self) -> Identity:
        """Return a new identity for each connection: a master may outlive a certificate."""
        return mint(self._config.secret, self._config.master, Role.CLIENT)

    def _open_message(self, wish: LeaseWish, lease: Lease) -> OpenLease:
        config = self._config
        return OpenLease(
            *(PROTOCOL, config.master, wish.slots, config.uid, config.gid),
            writable_root=config.writable_root,
            number=lease.cursor,
            clock_ns=time.time_ns(),
            hostname=os.uname().nodename,
            owner=owner_key(config.owner, wish.worker.address),
            temporary=config.temporary,
            groups=config.groups,
            user=config.user,
        )

    def _note_failure(self, name: str, error: Exception) -> float:
        """Log why a lease has ended. Return the shortest pause in seconds for its worker.

        A single damaged byte of a handshake looks like another secret. Only a worker that is
        refused twice in a row for one reason needs a person.
        """
        self.trouble = trouble_of(error)
        if not isinstance(error, TermiteError):
            log.error("lease-failed lease=%s", name, exc_info=error)
            return 0.0
        if isinstance(error, UserError) and self._refusals.get(name) is error.reason:
            line = f"{name}: {error}"
            if line not in self._logged_refusals:
                self._logged_refusals.add(line)
                log.warning("worker-refused worker=%s detail=%r reason=%s", name, str(error), error.reason)
            return REFUSED_REST_S
        self._refusals.pop(name, None)
        if isinstance(error, UserError):
            self._refusals[name] = error.reason
        log.info("worker-failed worker=%s detail=%r reason=%s", name, str(error), self.trouble.reason)
        return 0.0

    # -- the coordinator ----------------------------------------------------------------------------------------------

    def _take_workers(self, workers: Workers) -> None:
        if self.trouble is self._unreachable:
            self.trouble = None
        for name in self._fleet.replace(workers.workers, trio.current_time(), workers.gone):
            reason, architecture = Reason.OTHER_ARCHITECTURE, self._fleet.foreign[name]
            log.warning("worker-foreign worker=%s architecture=%s reason=%s", name, architecture, reason)
            self.trouble = self.trouble or Trouble(reason, f"worker {name}: its machine is {architecture}")
        for lease in self._leases:
            if self._fleet.is_drained(lease.worker):
                lease.changed.unpark_all()
        self._wanted.unpark_all()

    def _note_unreachable(self, trouble: Trouble) -> None:
        self.trouble = self._unreachable = trouble
