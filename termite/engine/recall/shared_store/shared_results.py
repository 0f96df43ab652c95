"""Read results from a shared store, and write them there.

Everything here blocks until the store answers, and belongs into a thread. A method that asks the
store raises StoreFailed if it does not answer in time. Its answers are worth what their signatures
and digests are worth.
"""

import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from termite.engine.errors import RemoteProtocolError, TermiteError
from termite.engine.model import Digest
from termite.engine.recall.ended_runs import EndedRun, Kept, StoreEffect
from termite.engine.recall.known.known_table import KnownTable
from termite.engine.recall.look_up.evidence import Shape, is_of_day, judge_proof, proof_key
from termite.engine.recall.look_up.fingerprints import FORMAT
from termite.engine.recall.look_up.stored_rows import PathSetRow, ResultRow
from termite.engine.recall.result_store import ResultStore
from termite.engine.recall.shared_store.circuit_breaker import StoreFailed
from termite.engine.recall.shared_store.shared_records import (
    MOST_RESULT_BYTES,
    AskedResult,
    ProvedResult,
    RunGround,
    SharedPathSet,
    SharedRefusal,
    evidence_of,
    is_refusal,
    merged_path_sets,
    open_path_sets,
    open_result,
    packed_record,
    result_name,
)
from termite.engine.recall.shared_store.shared_settings import SharedSettings, check_extra
from termite.engine.recall.shared_store.sharing_rights import has_asked_little
from termite.engine.recall.shared_store.signatures import (
    Distrust,
    Distrusted,
    RecordKind,
    RecordName,
    WriterKey,
)
from termite.engine.sparse_content import BLOCK_BYTES

TYPE_CHECKING = False  # the client needs the extra, and only a master with a shared store has it
if TYPE_CHECKING:
    from termite.engine.recall.shared_store.api_client import ApiClient

NO_SHAPE = bytes(16)
BATCHED_BYTES = 1024 * 1024  # a longer content is read and sent in pieces
PIECE_BYTES = 1024 * 1024
MOST_RECORD_BYTES = 2 * 1024 * 1024  # signed; some 20,000 outputs

log = logging.getLogger(__name__)


class Unfit(TermiteError):
    """A content or a result is not fit for use: the store lacks it, or has another one."""


@dataclass(frozen=True, slots=True)
class ResultDraft:
    """A result to be written, with its path set and what is known of its shape."""

    weak: bytes
    path_set: PathSetRow
    row: ResultRow
    evidence: Shape
    ground: RunGround


@dataclass(frozen=True, slots=True)
class RefusalDraft:
    """A shape whose results have differed, to be written."""

    shape: bytes
    difference: str


class SharedResults:
    """The results in one shared store, as this user reads and writes them."""

    def __init__(self, client: "ApiClient", settings: SharedSettings) -> None:
        self._client = client
        self._trusted = settings.trusted
        self._key = settings.key
        self.distrusted: Counter[Distrust] = Counter()

    def close(self) -> None:
        """End all calls, and the connection."""
        self._client.close()

    def connect(self, timeout_s: float) -> None:
        """Ask the store for something, so that later calls find a connection."""
        self._get(RecordName(RecordKind.SHAPE, NO_SHAPE), timeout_s)

    # -- reading ------------------------------------------------------------------------------------------------------

    def path_sets(self, weak: bytes, timeout_s: float) -> tuple[PathSetRow, ...]:
        """Return the path sets of a command, the newest first."""
        name = RecordName(RecordKind.PATH_SETS, weak)
        packed = self._get(name, timeout_s)
        if packed is None:
            return ()
        found, distrusted = open_path_sets(packed, name, self._trusted)
        for reason in distrusted.elements():
            self._note_distrust(reason, name)
        return found

    def results(self, asked: Sequence[AskedResult], timeout_s: float) -> list[tuple[AskedResult, ProvedResult]]:
        """Return the results of trusted writers among those that were asked for, in that order."""
        names = [(one, name) for one in asked for name in one.names]
        records = self._client.get_records([name for _, name in names], timeout_s)
        found = []
        for (one, name), packed in zip(names, records, strict=True):
            if packed is None:
                continue
            try:
                found.append((one, open_result(packed, name, self._trusted)))
            except Distrusted as error:
                self._note_distrust(error.reason, name)
        return found

    def is_refused(self, shape: bytes, timeout_s: float) -> bool:
        """Return whether a trusted writer has refused a shape."""
        name = RecordName(RecordKind.SHAPE, shape)
        packed = self._get(name, timeout_s)
        try:
            return packed is not None and is_refusal(packed, name, self._trusted)
        except Distrusted as error:
            self._note_distrust(error.reason, name)
            return False

    def bring_contents(self, row: ResultRow, local: ResultStore, timeout_s: float) -> None:
        """Put the contents of a result that are not there into our own store.

        Raise Unfit if the store does not have one, and Retryable or OSError if the disk refuses.
        """
        until_s = time.monotonic() + timeout_s
        missing = local.lacks(row.result.blobs.values())
        small = {digest for digest in missing if digest.size <= BATCHED_BYTES}
        try:
            for digest, content in self._client.get_contents(list(small), timeout_s):
                if digest in small:
                    local.put_content(digest, [content])
                    small.discard(digest)
            if small:
                raise Unfit(f"the store lacks {len(small)} contents of a result")
            for digest in missing:
                if digest.size > BATCHED_BYTES:
                    local.put_content(digest, self._client.read_content(digest, until_s - time.monotonic()))
        except RemoteProtocolError as error:
            raise Unfit(str(error)) from error
        except StoreFailed as error:
            if error.code == "NOT_FOUND":
                raise Unfit(f"the store lacks a content: {error}") from error
            raise

    def _get(self, name: RecordName, timeout_s: float) -> bytes | None:
        return next(self._client.get_records([name], timeout_s), None)

    def _note_distrust(self, reason: Distrust, name: RecordName) -> None:
        if not self.distrusted[reason]:
            log.warning("shared-record-refused record=%s digest=%s reason=%s", name.kind, name.digest.hex(), reason)
        self.distrusted[reason] += 1

    # -- writing ------------------------------------------------------------------------------------------------------

    def send(self, draft: ResultDraft | RefusalDraft, local: ResultStore, timeout_s: float) -> None:
        """Write a result or a refusal. Each of its steps may take `timeout_s`.

        Raise Unfit if the store cannot have the result, or if its contents are gone.
        """
        assert self._key is not None, "this user writes to the store"
        if isinstance(draft, RefusalDraft):
            name = RecordName(RecordKind.SHAPE, draft.shape)
            record = self._key.sign(name, packed_record(SharedRefusal(FORMAT, draft.difference)))
            self._client.put_record(name, record, (), timeout_s)
            return
        try:
            self._send_result(self._key, draft, local, timeout_s)
        except OSError as error:
            raise Unfit(f"a content of a result is gone: {error}") from error

    def _send_result(self, key: WriterKey, draft: ResultDraft, local: ResultStore, timeout_s: float) -> None:
        name = result_name(draft.row)
        assert name is not None, "such a result is no draft"
        shared = ProvedResult(FORMAT, draft.weak, draft.row, draft.evidence, draft.ground)
        record = key.sign(name, packed_record(shared))
        contents = draft.row.result.blobs.values()
        if len(record) > MOST_RECORD_BYTES or sum(digest.size for digest in contents) > MOST_RESULT_BYTES:
            raise Unfit("the result is too large")
        for digest in contents:
            _check_plain(local, digest)
        self._client.put_contents(contents, lambda digest: _read(local, digest), timeout_s)
        self._client.put_record(name, record, contents, timeout_s)
        sets = RecordName(RecordKind.PATH_SETS, draft.weak)
        signed = key.sign(sets, packed_record(SharedPathSet(FORMAT, draft.path_set)))
        former = self._get(sets, timeout_s) or b""
        merged = merged_path_sets(former, signed, sets, self._trusted)
        if merged != former:
            self._client.put_record(sets, merged, (), timeout_s)


def draft_of(
    store: ResultStore, run: EndedRun, kept: Kept, table: KnownTable, now_s: float
) -> ResultDraft | RefusalDraft | None:
    """Return what is written to a shared store after a run was kept, or None if nothing is.

    Only results that may be used are written. `store` is our own.
    """
    row, seen = kept.row, run.observation
    if run.shared_from is None or row is None or seen is None:
        return None
    if kept.effect is StoreEffect.REFUSED:
        return RefusalDraft(row.shape, kept.difference)
    if kept.effect is StoreEffect.NOT_STORED or result_name(row) is None or row.path_set_id != seen.row.id:
        return None
    shape, is_known = store.shape(row.shape), table.still_vouches(row)
    is_of_today = is_of_day(row.result, now_s)
    if not judge_proof(shape, proof_key(shape, row), is_known=is_known, is_of_today=is_of_today).is_enough:
        return None
    if not is_known and not has_asked_little(seen.dependencies.asked):
        return None
    stored = [one for one in store.rows(run.weak).results if (one.timed, one.blind) == (row.timed, row.blind)]
    if not stored:
        return None
    evidence = evidence_of(row, shape, is_known=is_known)
    return ResultDraft(run.weak, seen.row, stored[0], evidence, RunGround(os.uname().nodename, run.shared_from))


def open_results(settings: SharedSettings) -> SharedResults:
    """Return the results of a store. Raise UserError if the extra is not installed.

    Nobody waits for the store: it may be away.
    """
    check_extra()
    from termite.engine.recall.shared_store.api_client import ApiClient

    return SharedResults(ApiClient(settings), settings)


def _read(local: ResultStore, digest: Digest) -> Iterator[bytes]:
    """Yield a content of our own store in pieces. Raise FileNotFoundError if it is gone."""
    fd = local.open_content(digest)
    if fd is None:
        raise FileNotFoundError(digest.sha256.hex())
    with open(fd, "rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _check_plain(local: ResultStore, digest: Digest) -> None:
    """Raise Unfit if a digest is no plain SHA-256, as that of a content with long holes.

    No server takes it then.
    """
    if digest.size < BLOCK_BYTES:
        return
    state = hashlib.sha256()
    for piece in _read(local, digest):
        state.update(piece)
    if state.digest() != digest.sha256:
        raise Unfit(f"the content {digest.sha256.hex()} has long holes")
