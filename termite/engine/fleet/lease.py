"""A worker's grant of slots, which is one connection to one mirror process.

The cursor of a lease is the last journal number that the mirror has certainly applied. Changesets
that no reply has confirmed are sent again; the mirror ignores those that it has applied.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import msgspec
import trio

from termite.engine.errors import (
    FsError,
    Outdated,
    Reason,
    RemoteProtocolError,
    Retryable,
    Stale,
    TermiteError,
    UserError,
)
from termite.engine.fleet.logic.learnt_names import LearntNames, unpack, unpack_at_once
from termite.engine.fleet.logic.result_paths import check_result_paths
from termite.engine.loop.long_work import compute
from termite.engine.loop.slot_numbers import SlotNumbers
from termite.engine.model import Digest, MachineFacts, PackedTrace, TraceGap, TraceMode, WorkerRoom
from termite.engine.wire.protocol.message_base import Message
from termite.engine.wire.protocol.messages import (
    GetBlob,
    GetLog,
    Leased,
    LogRecords,
    OpenLease,
    Ping,
    Pong,
    Ran,
    Run,
    UseTerminal,
)
from termite.engine.wire.transport import Connection, OnChunk

OPEN_TIMEOUT_S = 15.0  # a mirror process starts and mounts in well under a second; a job waits for it
LOG_TIMEOUT_S = 10.0  # a worker answers from its memory
SKEW_LIMIT_NS = 1_000_000_000
NEAR_NS = 5_000_000  # round trip; home links take longer, and have a tenth of a local network's bandwidth


class Lease:
    """A worker's grant of slots, with the state of its mirror and the counts of its jobs."""

    def __init__(self, worker: str, cursor: int, now: float) -> None:
        self.worker = worker
        self.cursor = cursor
        self.sent_number = cursor  # the last journal number that was sent, confirmed or not
        self.is_near = False  # True if the worker is on the master's machine or in its local network
        self.slots = 0
        self.machine = MachineFacts()  # until slots are granted
        self.room = WorkerRoom()
        self.release = ""  # of the worker's termite; "" if it is not known
        self.running = 0
        self.slot_numbers = SlotNumbers()
        self.jobs = 0  # jobs that ended on the worker
        self.failures = 0  # failed attempts since the last job that ended
        self.offset_ns = 0  # the worker's clock plus this is the master's clock
        self.idle_since = now
        self.is_retired = True  # until slots are granted
        self.changed = trio.lowlevel.ParkingLot()
        self.traced_names = LearntNames()
        self.newest_seal = 0  # of the seals to which symlinks lead in directories that were listed for the mirror
        self.known_turns: int | None = None  # of directories, when the first one was listed for the mirror
        self.cannot_trace = False  # True if the worker has said that it can trace no job
        self._connection: Connection | None = None
        self._told = (0, 0, 0)  # the traffic that `take_traffic` has returned so far

    async def run(self, message: Run, on_chunk: OnChunk, on_posted: Callable[[], None] | None = None) -> Ran:
        """Run a command on the worker and wait for its end.

        `on_posted` is called when later messages come after this one. `on_chunk` gets the chunks
        that arrive meanwhile, and may raise a TermiteError, which ends the run. Raise Retryable if
        the command did not run to its end for a reason that is not its own, and RemoteProtocolError
        if the worker has answered what no worker may.
        """
        ran = await self._request(message, on_chunk, on_posted)
        if not isinstance(ran, Ran):
            raise Retryable(Reason.BAD_ANSWER, f"{self.worker} answered Run with {type(ran).__name__}")
        self.cursor = max(self.cursor, message.number)
        await compute(len(ran.changes) + len(ran.dropped), partial(check_result_paths, ran))
        if ran.trace is not None:
            ran = await self._learn(ran, ran.trace, message.trace)
        self.jobs += 1
        return ran

    async def _learn(self, ran: Ran, trace: PackedTrace, wished: TraceMode) -> Ran:
        """Learn the trace of a run, and return the run. A trace that nobody wished is dropped."""
        if wished is TraceMode.OFF:
            return msgspec.structs.replace(ran, trace=None)
        names = unpack_at_once(trace)
        if names is None:
            names = await trio.to_thread.run_sync(unpack, trace, len(self.traced_names))
        self.traced_names.learn(trace, names)
        self.cannot_trace |= bool(trace.gaps & TraceGap.IMPOSSIBLE)
        return ran

    async def fetch(self, digest: Digest, on_chunk: OnChunk) -> None:
        """Fetch the content of a result in chunks. The caller must check the digest.

        Raise Retryable if the worker does not deliver the content.
        """
        await self._request(GetBlob(digest), on_chunk)

    async def use_terminal(self, message: UseTerminal) -> None:
        """Change the window of a job's terminals, or type at one. Wait until that has been done.

        Raise Retryable if the connection is lost; the job fails then, too.
        """
        assert self._connection is not None
        await self._connection.request(message)

    async def read_log(self, after: int, most: int) -> LogRecords:
        """Return the last records of the worker's log, at most `most` with numbers above `after`.

        Raise Retryable if the worker does not answer properly.
        """
        assert self._connection is not None
        answer = await self._connection.request(GetLog(after, most), timeout_s=LOG_TIMEOUT_S)
        if not isinstance(answer, LogRecords):
            raise Retryable(Reason.BAD_ANSWER, f"{self.worker} answered GetLog with {type(answer).__name__}")
        return answer

    async def open(self, connection: Connection, request: OpenLease) -> int:
        """Ask for slots, compare the clocks, and return the number of granted slots.

        Raise UserError if the clocks differ by more than SKEW_LIMIT_NS, and Retryable if the worker
        does not answer properly.
        """
        self._connection = connection
        leased = await connection.request(request, timeout_s=OPEN_TIMEOUT_S)
        asked_ns = time.time_ns()
        pong = await connection.request(Ping(), timeout_s=OPEN_TIMEOUT_S)
        if not isinstance(leased, Leased) or not isinstance(pong, Pong):
            raise Retryable(Reason.BAD_ANSWER, f"{self.worker} gave a wrong answer to OpenLease or Ping")
        answered_ns = time.time_ns()
        self.is_near = answered_ns - asked_ns < NEAR_NS
        self.offset_ns = (asked_ns + answered_ns) // 2 - pong.clock_ns
        if abs(self.offset_ns) > SKEW_LIMIT_NS:
            raise UserError(
                f"worker {self.worker}: its clock differs by {-self.offset_ns / 1e9:+.1f} s",
                hint="set the clocks of both machines, with NTP for example",
                reason=Reason.CLOCKS_DIFFER,
            )
        self.slots = leased.slots
        self.machine = leased.machine
        self.room, self.release = leased.room, leased.release
        self.is_retired = leased.slots == 0
        return leased.slots

    @property
    def is_open(self) -> bool:
        """True if the lease takes jobs."""
        return not self.is_retired and self._connection is not None and not self._connection.lost.is_set()

    def statistics(self) -> dict[str, int]:
        """Return the counts of the connection, or {} if there is none yet."""
        return self._connection.statistics() if self._connection else {}

    def take_traffic(self) -> tuple[int, int, int]:
        """Return the bytes sent and received and the requests since the last call of this."""
        if self._connection is None:
            return 0, 0, 0
        sent, received, requests = self._connection.traffic
        old_sent, old_received, old_requests = self._told
        self._told = sent, received, requests
        return sent - old_sent, received - old_received, requests - old_requests

    @property
    def messages(self) -> Mapping[str, int]:
        """The numbers of requests on the connection so far, by kind."""
        return self._connection.messages if self._connection else {}

    async def _request(
        self, message: Message, on_chunk: OnChunk, on_posted: Callable[[], None] | None = None
    ) -> Message:
        assert self._connection is not None
        ours: list[TermiteError] = []

        async def take(chunk: bytes) -> None:
            try:
                await on_chunk(chunk)
            except TermiteError as error:  # such as a full disk of the master, which no other worker can help
                ours.append(error)
                raise

        try:
            return await self._connection.request(message, take, on_posted=on_posted)
        except Stale as error:
            raise Outdated(error.detail) from error
        except (UserError, RemoteProtocolError, FsError) as error:
            if error in ours:
                raise
            raise Retryable(Reason.BAD_ANSWER, f"{self.worker}: {error}") from error


@dataclass(frozen=True, slots=True)
class Traffic:
    """The traffic of leases.

    `counts` has the statistics of their connections, and `messages` the requests by kind.
    """

    counts: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)

    def add(self, lease: Lease) -> None:
        """Add the traffic of a lease."""
        self.counts.update(lease.statistics())
        self.messages.update(lease.messages)
