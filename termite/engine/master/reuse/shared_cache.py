"""Get results from a shared store when our own has none, and send it those that others may use.

The calls are made in threads, because the store may be slow, and this must cost the event loop
nothing. A result that comes goes into our own store first, and is then used as any other one.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio

from termite.engine.errors import TermiteError
from termite.engine.master.reuse.result_look_up import ResultSource, ask_tree
from termite.engine.model import MachineFacts, StoreLimits
from termite.engine.recall.ended_runs import FoundResult, StoreEffect, keep_shared
from termite.engine.recall.fact_reader import FactReader
from termite.engine.recall.logic.dependencies import NotStorable
from termite.engine.recall.look_up.evidence import execution_of
from termite.engine.recall.look_up.recollection import fingerprints_now
from termite.engine.recall.look_up.stored_rows import PathSetRow, ResultRow
from termite.engine.recall.result_store import ResultStore
from termite.engine.recall.shared_store.circuit_breaker import (
    OFF_S,
    REFUSALS,
    UNAVAILABLE,
    CircuitBreaker,
    StoreFailed,
)
from termite.engine.recall.shared_store.shared_records import (
    AskedResult,
    ProofHere,
    ProvedResult,
    RunGround,
    find_obstacle,
)
from termite.engine.recall.shared_store.shared_results import (
    RefusalDraft,
    ResultDraft,
    SharedResults,
    Unfit,
    open_results,
)
from termite.engine.recall.shared_store.shared_settings import SharedSettings
from termite.engine.tree.master_tree import MasterTree

CONNECT_S = 5.0
LOOK_UP_S = 0.3  # that the answers to one look-up may take together
MOST_CONTENTS_S = 30.0  # for contents; they never take longer than the command did
SLACK_S = 0.05  # until a thread that has timed out is left to itself
UPLOAD_S = 30.0  # for each step of an upload, which nobody waits for
MOST_CALLS = 100  # at once, each in a thread; a build has fewer jobs
MOST_UPLOADS = 4  # at once
MOST_WAITING = 1000  # results that are to be sent, of some kilobytes each; their contents are on the disk

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger(__name__)


class SharedCache:
    """The use that one master makes of a shared store.

    `local` is a store of its own for what comes, because two tasks may not write through one.
    """

    def __init__(self, results: SharedResults, local: ResultStore, source: ResultSource, address: str) -> None:
        self._results, self._local, self._source, self._address = results, local, source, address
        self._breaker = CircuitBreaker()
        self._offered, self._waiting = trio.open_memory_channel[ResultDraft | RefusalDraft](MOST_WAITING)
        self._turn = trio.Lock()  # of the thread that writes to `local`
        self._calls = trio.CapacityLimiter(MOST_CALLS)
        self._sending = 0
        self._is_refused = False  # the store takes nothing from this user
        self._counts = Counter[str]()

    def close(self, until_s: float) -> None:
        """Send what waits until this time of the monotonic clock, and end."""
        with suppress(trio.WouldBlock):
            while True:
                draft = self._waiting.receive_nowait()
                left_s = until_s - time.monotonic()
                if left_s <= 0 or not self._may_send():
                    self._counts["not-sent"] += 1
                    continue
                try:
                    self._results.send(draft, self._local, min(UPLOAD_S, left_s))
                except Exception as error:  # around one result, which is not sent: the master ends
                    self._note_unsent(error)
                else:
                    self._counts["sent"] += 1
        self._results.close()
        self._local.close()

    @property
    def is_sending(self) -> bool:
        """Return whether a result waits to be sent, or is on its way."""
        return bool(self._sending or self._offered.statistics().current_buffer_used)

    def report(self) -> dict[str, object]:
        """Return what `termite-ctl status` shows of the store."""
        counts = self._counts
        return {
            "address": self._address,
            "is_off": not self._breaker.may_ask(trio.current_time()),
            "refuses": self._is_refused,
            "used": counts["brought"],
            "sent": counts["sent"],
            "not_sent": counts["not-sent"],
            "distrusted": self._results.distrusted.total(),
            "failures": self._breaker.failures,
        }

    def statistics(self) -> dict[str, int]:
        """Return what happened to look-ups and uploads since the master started."""
        refused = {f"distrusted-{reason}": count for reason, count in self._results.distrusted.items()}
        waiting = self._offered.statistics().current_buffer_used
        counts = {"failures": self._breaker.failures, "waiting": waiting}
        return {**self._counts, **refused, **counts}

    # -- look-up ------------------------------------------------------------------------------------------------------

    async def bring(
        self, weak: bytes, tree: MasterTree, reader: FactReader, machines: Collection[MachineFacts]
    ) -> bool:
        """Bring a result for a command into our own store. Return whether that has one now.

        `machines` are those on which the command could run. This raises no error.
        """
        if not self._breaker.may_ask(trio.current_time()):
            self._counts["off"] += 1
            return False
        try:
            outcome = await self._bring(weak, tree, reader, machines)
        except StoreFailed as error:
            self._note_failure(error)
            outcome = "failed"
        except Unfit as error:
            if not self._counts["unfit"]:
                log.warning("shared-result-unfit address=%s reason=%s", self._address, error)
            outcome = "unfit"
        except (TermiteError, NotStorable, OSError) as error:
            log.debug("shared-look-up-failed reason=%s", error)
            outcome = "failed"
        except Exception:  # around one look-up: the command runs
            log.exception("result-cache-failed step=%s", "bring")
            outcome = "failed"
        self._counts[outcome] += 1
        return outcome == "brought"

    async def _bring(
        self, weak: bytes, tree: MasterTree, reader: FactReader, machines: Collection[MachineFacts]
    ) -> str:
        """Return what has become of a look-up: `brought`, or the reason of the miss."""
        patience = _Patience(LOOK_UP_S)
        asked = []
        for candidate in await self._call(patience, self._results.path_sets, weak):
            if (one := await _fingerprinted(weak, candidate, tree, reader)) is not None:
                asked.append(one)
        if not asked:
            return "missed"
        found = await self._call(patience, self._results.results, asked)
        grounds = {RunGround(os.uname().nodename, machine) for machine in machines}  # a job sees our name
        here = ProofHere(self._source.table, self._source.store.shape, grounds, time.time())
        obstacle = None
        for one, shared in found:
            if (obstacle := find_obstacle(shared, one, here)) is not None:
                continue
            if await self._call(patience, self._results.is_refused, shared.row.shape):
                return "refused"
            await self._call(_Patience(_contents_s(shared.row)), self._bring_contents, shared.row)
            return await self._keep(one, shared)
        return "missed" if obstacle is None else f"unusable-{obstacle}"

    def _bring_contents(self, row: ResultRow, timeout_s: float) -> None:
        self._results.bring_contents(row, self._local, timeout_s)

    async def _keep(self, asked: AskedResult, shared: ProvedResult) -> str:
        found = FoundResult(asked.weak, asked.candidate, shared.row, {}, shared.evidence)
        async with self._turn:
            kept = await trio.to_thread.run_sync(keep_shared, self._local, found, int(time.time()))
        self._source.store.follow(self._local)
        if kept.effect is StoreEffect.REFUSED:
            log.info("results-refused job=%r difference=%r", shared.row.result.job, kept.difference)
        return "brought" if kept.effect in (StoreEffect.STORED, StoreEffect.PROVED) else f"not-{kept.effect}"

    async def _call(self, patience: "_Patience", ask: Callable[[T, float], R], what: T) -> R:
        """Ask the store in a thread, for as long as the patience lasts. Raise StoreFailed."""
        started_s, left_s = trio.current_time(), patience.left_s
        try:
            with trio.fail_after(max(left_s, 0) + SLACK_S):
                return await trio.to_thread.run_sync(ask, what, left_s, abandon_on_cancel=True, limiter=self._calls)
        except trio.TooSlowError:
            raise StoreFailed("DEADLINE_EXCEEDED") from None
        finally:
            patience.left_s -= trio.current_time() - started_s

    def _note_failure(self, error: StoreFailed) -> None:
        if self._breaker.note_failure(trio.current_time()):
            log.warning("shared-store-off address=%s seconds=%d reason=%s", self._address, OFF_S, error)

    # -- uploads ------------------------------------------------------------------------------------------------------

    def offer(self, drafts: Iterable[ResultDraft | RefusalDraft]) -> None:
        """Let results be sent. This does not block, and drops what is too much."""
        for draft in drafts:
            try:
                self._offered.send_nowait(draft)
            except trio.WouldBlock:
                self._counts["not-sent"] += 1

    async def run(self) -> None:
        """Connect to the store, and send results as they come, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._connect)
            for _ in range(MOST_UPLOADS):
                nursery.start_soon(self._send_all)

    async def _connect(self) -> None:
        """Connect before the first look-up comes, whose patience is short."""
        try:
            await trio.to_thread.run_sync(self._results.connect, CONNECT_S, abandon_on_cancel=True)
        except StoreFailed as error:
            self._note_failure(error)

    async def _send_all(self) -> None:
        while True:
            draft = await self._waiting.receive()
            if not self._may_send():
                self._counts["not-sent"] += 1
                continue
            self._sending += 1
            try:
                await trio.to_thread.run_sync(
                    self._results.send, draft, self._local, UPLOAD_S, abandon_on_cancel=True, limiter=self._calls
                )
            except Exception as error:  # around one result, which is not sent: the jobs and the master go on
                self._note_unsent(error)
            else:
                self._counts["sent"] += 1
            finally:
                self._sending -= 1

    def _note_unsent(self, error: Exception) -> None:
        self._counts["not-sent"] += 1
        if isinstance(error, StoreFailed) and error.code in REFUSALS:
            if not self._is_refused:
                log.warning("shared-store-refuses address=%s reason=%s", self._address, error)
            self._is_refused = True
        elif isinstance(error, StoreFailed):
            # An upload that takes long keeps nobody from looking for results.
            if error.code == UNAVAILABLE:
                self._note_failure(error)
        elif isinstance(error, Unfit):
            log.debug("shared-result-not-sent reason=%s", error)
        else:
            log.error("shared-result-not-sent reason=%r", error, exc_info=error)

    def _may_send(self) -> bool:
        return not self._is_refused and self._breaker.may_ask(trio.current_time())


def open_shared_cache(settings: SharedSettings, root: Path, limits: StoreLimits, source: ResultSource) -> SharedCache:
    """Return the use of a shared store. `root` is our own store, which is opened once more.

    Raise UserError if the extra is not installed, and OSError or Retryable.
    """
    local = ResultStore(root, limits, int(time.time()))
    return SharedCache(open_results(settings), local, source, settings.address.target)


@dataclass(slots=True)
class _Patience:
    """The time that the answers to one question may still take, in seconds."""

    left_s: float


def _contents_s(row: ResultRow) -> float:
    """Return how long the contents of a result may take: no longer than the command itself did."""
    return min(max(LOOK_UP_S, execution_of(row.result).took_s), MOST_CONTENTS_S)


async def _fingerprinted(
    weak: bytes, candidate: PathSetRow, tree: MasterTree, reader: FactReader
) -> AskedResult | None:
    """Return what is asked for with a path set, or None if the tree cannot fit it."""
    try:
        found = await ask_tree(tree, reader, lambda facts: fingerprints_now(weak, candidate, facts))
    except (TermiteError, NotStorable) as error:
        log.debug("shared-look-up-failed reason=%s", error)
        return None
    return None if found is None else AskedResult(weak, candidate, *found)
