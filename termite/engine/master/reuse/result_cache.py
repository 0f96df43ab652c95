"""Keep what all jobs share to use results again: the store, and the queue of new results.

Jobs read the store in the event loop, which takes a tenth of a millisecond. A thread writes to it,
with connections of its own, after the launchers have their exit codes.
"""

import logging
import math
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import trio

from termite.engine.decide.environment import encoded_words, environment_of
from termite.engine.decide.known_tools import KnownTool
from termite.engine.errors import Retryable, TermiteError
from termite.engine.launch.output import KeptOutput
from termite.engine.master.job import Job
from termite.engine.master.remote_runs.traced_jobs import trace_mode
from termite.engine.master.reuse.result_look_up import ResultSource, look_up, miss_detail
from termite.engine.master.reuse.run_observer import AskTable
from termite.engine.master.reuse.shared_cache import SharedCache, open_shared_cache
from termite.engine.master.reuse.twin_jobs import TwinJobs
from termite.engine.model import CacheMode, Command, MachineFacts, TerminalWish, TraceMode
from termite.engine.recall.ended_runs import EndedRun, StoreEffect, keep_run
from termite.engine.recall.fact_reader import FactReader
from termite.engine.recall.known.known_table import CommandFacts, KnownTable, proof_of_table
from termite.engine.recall.logic.dependencies import NotStorable, Obstacle
from termite.engine.recall.look_up.differences import Difference, MissCause
from termite.engine.recall.look_up.evidence import is_audit_due
from termite.engine.recall.look_up.fingerprints import (
    STDIN_CLOSED,
    STDIN_ENDED,
    UNKEYED,
    CommandIdentity,
    stdin_of_file,
    weak_fingerprint,
)
from termite.engine.recall.look_up.stored_rows import ResultRow
from termite.engine.recall.result_store import ResultStore, default_limits
from termite.engine.recall.shared_store.shared_results import RefusalDraft, ResultDraft, draft_of
from termite.engine.recall.shared_store.shared_settings import SharedSettings
from termite.engine.status.report import Counters
from termite.engine.store.store_upkeep import StoreUpkeep, next_step_in_thread
from termite.engine.tree.master_tree import MasterTree
from termite.engine.wire.protocol.messages import Ran

MOST_WAITING = 500  # ended runs; if the disk is slower than that, results are not stored
TURN_S = 1.0  # that a thread writes before the event loop takes over: a shutdown waits so long
CLOSE_SHARED_S = 10.0  # for what waits to be sent to a shared store
CLOSE_S = 3.0  # for what waits at the end; results that come later are lost
MOST_WAITING_BYTES = 64 * 1024 * 1024  # of their contents in memory

AUDIT = "audit"  # in the record of a job whose result is known, but compared with that of a run

log = logging.getLogger(__name__)


class ResultCache:
    """The results that jobs of one master use again, and leave.

    `env_exclude` are the patterns of variables that no job gets, `root` is the top of the tree.
    """

    def __init__(
        self,
        mode: CacheMode,
        results: Path,
        env_exclude: tuple[str, ...],
        root: bytes,
        table: KnownTable,
        shared: SharedSettings | None = None,
    ) -> None:
        """Open the store, and the shared one if there is one.

        Raise OSError or Retryable if this is impossible.
        """
        self._mode = mode
        # No job that may be recalled gets a variable that no fingerprint has.
        self._left_out, self._hidden = (*env_exclude, *UNKEYED), env_exclude
        self._root = root
        self._ids = (os.getuid(), os.getgid(), *sorted(os.getgroups()))
        now_s = int(time.time())
        results.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk = os.statvfs(results)
        limits = default_limits(disk.f_blocks * disk.f_frsize)
        self.store = ResultStore(results, limits, now_s)
        self.source = ResultSource(self.store, table)
        self._written = ResultStore(results, limits, now_s) if mode is CacheMode.ON else None
        self._waiting: deque[EndedRun] = deque()
        self._waiting_bytes = 0
        self._used: deque[tuple[bytes, ResultRow]] = deque()
        self._is_filled = trio.Event()
        self._turn = trio.Lock()  # of the thread that writes
        self._counts = Counter[str]()
        self._hits = 0  # with those that were audited
        self.counted_build, self.count_before = Counters(), 0  # a build, and the commands of the one before
        self.twins = TwinJobs()
        self.shared: SharedCache | None = None
        if shared is not None and self._written is not None:
            self.shared = open_shared_cache(shared, results, limits, self.source)
        self.may_send = self.shared is not None and shared is not None and shared.key is not None

    def close(self) -> None:
        """Store what waits, as much as CLOSE_S allows, and close the store.

        Results for others are sent for at most CLOSE_SHARED_S.
        """
        self._write(time.monotonic() + CLOSE_S)
        if self.shared is not None:
            self.shared.close(time.monotonic() + CLOSE_SHARED_S)
        self.store.close()
        if self._written is not None:
            self._written.close()

    def identify(self, job: Job, command: Command, machine: MachineFacts | None) -> None:
        """Give a job its identity if its result may be recalled, or stored.

        `machine` is the one whose answers the command gets, or None if it asks for none.
        """
        if not _is_recallable(job):
            return
        request, rule = job.request, job.verdict.rule if job.verdict else None
        memory_bytes = rule.memory_bytes if rule else 0
        job.identity = CommandIdentity(
            argv=encoded_words(command.argv),
            exe=os.fsencode(command.exe),
            search=command.search,
            cwd=os.fsencode(command.cwd),
            env=environment_of(command).without((*self._left_out, *(rule.ignore_env if rule else ()))).remote_words,
            umask=request.umask,
            root=self._root,
            stdin=_stdin_word(job),
            merge=request.merge,
            ids=self._ids,
            limits=f"{request.inherited.limits} {memory_bytes}",
            nice=request.inherited.nice,
            ignored=request.inherited.ignored,
            terminal=_terminal_words(job.terminal),
            machine=msgspec.msgpack.encode(machine) if machine else b"",
        )
        job.weak = weak_fingerprint(job.identity)
        job.is_stored = self._mode is CacheMode.ON
        if job.is_stored:
            job.output.kept = KeptOutput()

    # -- look-up ------------------------------------------------------------------------------------------------------

    async def find(
        self, job: Job, tree: MasterTree, reader: FactReader, may_audit: Callable[[], bool] = bool
    ) -> ResultRow | None:
        """Return a result that the job's command would produce in the tree as it is now, or None.

        The job's notes then say why not. Nothing has waited since the last drain when this returns.
        It raises no error. One hit of many is None if `may_audit` says so: the command
        runs, and its result is compared with the stored one.
        """
        assert job.identity is not None, "the job may be recalled"
        tree.show_named(job.identity.argv, job.identity.cwd, job.identity.env)
        try:
            found = await look_up(self.source, job.identity, job.weak, tree, reader)
        except (TermiteError, NotStorable) as error:  # a fact cannot be had
            log.debug("look-up-failed job=%d reason=%s", job.id, error)
            found = Difference(MissCause.GAP, old=Obstacle.FACTS.encode())
        except Exception:  # around one look-up: the command runs
            log.exception("result-cache-failed step=%s", "find")
            found = Difference(MissCause.GAP, old=Obstacle.FACTS.encode())
        if isinstance(found, ResultRow):
            self._hits += 1
            if job.is_stored and is_audit_due(self._hits) and may_audit():
                self._counts["audits"] += 1
                job.notes.miss = AUDIT
                return None
            self._counts["hits"] += 1
            job.notes.miss, job.notes.missed = "", None  # of an earlier look
            return found
        self._counts[f"miss-{found.cause}"] += 1
        hidden = environment_of(job.command).hidden(self._hidden) if job.command else ()
        job.notes.miss, job.notes.missed = found.cause.value, miss_detail(found, hidden)
        return None

    async def bring(
        self, job: Job, tree: MasterTree, reader: FactReader, machines: Callable[[], Collection[MachineFacts]]
    ) -> bool:
        """Return whether a shared store had a result for the job, after a miss. It is here now.

        `machines` returns those on which the command could run.
        """
        if self.shared is None or job.notes.miss == AUDIT:
            return False
        return await self.shared.bring(job.weak, tree, reader, machines())

    def note_use(self, weak: bytes, row: ResultRow) -> None:
        """Note that a result was used, so that it is evicted later."""
        if self._written is not None:
            self._used.append((weak, row))
            self._is_filled.set()

    def table_question(self, job: Job, ran: Ran) -> AskTable | None:
        """Return how the table of known tools is asked about a run, or None if that is needless."""
        if ran.exit.code or ran.exit.signal or job.identity is None or job.output.kept is None:
            return None
        messages = b"".join(content for _, content in job.output.kept.pieces)
        identity, table = job.identity, self.source.table
        return lambda found, facts: proof_of_table(table, CommandFacts(identity, found, messages), facts)

    # -- new results --------------------------------------------------------------------------------------------------

    def keep(self, run: EndedRun) -> None:
        """Let the result of a run be stored. This does not block."""
        held_bytes = _held_bytes(run)
        self.twins.keep(run.weak)
        if len(self._waiting) >= MOST_WAITING or self._waiting_bytes + held_bytes > MOST_WAITING_BYTES:
            self._counts["dropped"] += 1
            self.twins.end(run.weak)
            return
        self._waiting.append(run)
        self._waiting_bytes += held_bytes
        self._is_filled.set()

    async def run(self) -> None:
        """Store results as they come, until cancelled."""
        while True:
            await self._is_filled.wait()
            self._is_filled = trio.Event()
            try:
                async with self._turn:
                    await self._write_in_thread()
                if self._written is not None:
                    self.store.follow(self._written)
            except Exception:  # around what waits, which is not stored: the jobs and the master go on
                log.exception("result-queue-failed")

    async def take_care(self, is_idle: Callable[[], bool]) -> None:
        """Keep the store within its limits, and its contents sound while no job runs."""
        if self._written is None:
            return
        upkeep = StoreUpkeep(self._written, is_idle, self._next_step)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upkeep.keep_within_limits)
            nursery.start_soon(upkeep.keep_sound)

    async def _next_step(self, steps: Iterator[int]) -> int | None:
        async with self._turn:
            return await next_step_in_thread(steps)

    def _write(self, until_s: float = math.inf) -> list[bytes]:
        """Store what waits now, and return the weak fingerprints of the runs.

        Stop at `until_s` of the monotonic clock. No thread may write meanwhile.
        """
        batch = self._take()
        try:
            self._store(batch, until_s)
        finally:
            self._settle(batch)
        return [run.weak for run in batch.written]

    async def _write_in_thread(self) -> None:
        batch = self._take()
        try:
            await trio.to_thread.run_sync(self._store, batch, time.monotonic() + TURN_S)
        finally:
            self._settle(batch)

    def _take(self) -> "_Batch":
        batch = _Batch(self._used, self._waiting)
        self._used, self._waiting = deque(), deque()
        return batch

    def _settle(self, batch: "_Batch") -> None:
        """Count what is written, and let the rest wait again."""
        for run in batch.written:
            self._waiting_bytes -= _held_bytes(run)
            self.twins.end(run.weak)
        self._counts.update(batch.counts)
        if self.shared is not None:
            self.shared.offer(batch.drafts)
        self._used.extendleft(reversed(batch.used))
        self._waiting.extendleft(reversed(batch.waiting))
        if self._used or self._waiting:
            self._is_filled.set()

    def _store(self, batch: "_Batch", until_s: float) -> None:
        """Store a batch. A thread may do this: it touches nothing that the event loop uses."""
        store, now_s = self._written, int(time.time())
        while batch.used and time.monotonic() < until_s:
            weak, row = batch.used.popleft()
            if store is not None:
                store.note_use(weak, row, now_s)
        while batch.waiting and time.monotonic() < until_s:
            run = batch.waiting.popleft()
            batch.written.append(run)
            if store is None:
                continue
            try:
                kept = keep_run(store, run, now_s)
                draft = draft_of(store, run, kept, self.source.table, now_s)
            except Exception:  # around one result, which is not stored: the jobs and the master go on
                log.exception("result-queue-failed")
                continue
            batch.counts[kept.effect.value] += 1
            if draft is not None:
                batch.drafts.append(draft)
            if kept.effect is StoreEffect.REFUSED and kept.difference:
                log.info("results-refused job=%r difference=%r", run.result.job, kept.difference)

    def statistics(self) -> dict[str, int]:
        """Return what happened to look-ups and to ended runs since the master started."""
        shared = {f"shared-{name}": count for name, count in self.shared.statistics().items()} if self.shared else {}
        return {**self._counts, **shared, "waiting": len(self._waiting)}


@dataclass(slots=True)
class _Batch:
    """Uses and runs that a thread stores. Runs that it has taken are in `written`."""

    used: deque[tuple[bytes, ResultRow]]
    waiting: deque[EndedRun]
    written: list[EndedRun] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    drafts: list[ResultDraft | RefusalDraft] = field(default_factory=list)


def open_cache(
    mode: CacheMode,
    results: Path | None,
    env_exclude: tuple[str, ...],
    root: bytes,
    tools: Iterable[KnownTool],
    shared: SharedSettings | None = None,
) -> ResultCache | None:
    """Return the cache of a master, or None if it is off or cannot be opened.

    `tools` are those for which the plugins vouch. `shared` is the store that is shared with others,
    if there is one.
    """
    if mode is CacheMode.OFF or results is None:
        return None
    table = KnownTable(tools)
    for name, reason in table.refused:
        log.warning("known-tool-refused tool=%r reason=%s", name, reason)
    try:
        return ResultCache(mode, results, env_exclude, root, table, shared)
    except (OSError, Retryable) as error:
        log.warning("results-not-opened path=%s reason=%s", results, error)
        return None


def _held_bytes(run: EndedRun) -> int:
    """Return about how much memory an ended run takes."""
    contents = sum(len(content) for content in run.contents.values() if isinstance(content, bytes))
    return contents + sum(len(piece.content) for piece in run.result.output)


def _stdin_word(job: Job) -> bytes:
    """Return the standard input of a job that has none to read, or one that is held.

    If make runs several commands at once, chance gives one of them its own standard input, and all
    others a pipe at its end. Therefore a command of make always gets /dev/null.
    """
    if job.stdin.held is not None and job.request.stdin_file is not None:
        return stdin_of_file(job.request.stdin_file, job.stdin.held)
    if job.request.stdin_closed:
        return STDIN_CLOSED
    is_of_make = "MAKELEVEL" in job.request.invocation.env
    return STDIN_ENDED if job.request.stdin_ended and not is_of_make else b""


def _is_recallable(job: Job) -> bool:
    """Return whether nothing but the tree and the command decides what the job does.

    A job whose standard input is a stream, or a large file, may read anything there.
    """
    rule = job.verdict.rule if job.verdict else None
    if rule is not None and (rule.recurse or not rule.cache):
        return False
    if job.request.is_stdin_terminal or (job.request.has_stdin and job.stdin.held is None):
        return False
    return trace_mode(job, TraceMode.EXACT) is not TraceMode.OFF


def _terminal_words(terminal: TerminalWish | None) -> tuple[int, ...]:
    """Return what a command can learn of its terminal, () if it has none."""
    if terminal is None:
        return ()
    size = msgspec.structs.astuple(terminal.size)
    return (*size, terminal.stdin, terminal.stdout, terminal.stderr, terminal.is_stderr_apart)
