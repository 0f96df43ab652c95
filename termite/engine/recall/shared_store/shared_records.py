"""Name the records of a shared store, and decide which of them may be used here.

There are three kinds (`RecordKind`). All begin with the format of fingerprints, so that another
version of termite finds nothing. A record of path sets is a list of signed ones, each of its own
writer, the newest first.
"""

import enum
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from termite.engine.errors import RemoteProtocolError
from termite.engine.model import MachineFacts
from termite.engine.paths import check_paths
from termite.engine.recall.known.known_table import KnownTable
from termite.engine.recall.logic.uses import pack_path_set
from termite.engine.recall.look_up.evidence import Shape, is_of_day, judge_proof, merged_shape, proof_key
from termite.engine.recall.look_up.fingerprints import FORMAT
from termite.engine.recall.look_up.stored_rows import PathSetRow, ResultRow, pack_value, unpack_value
from termite.engine.recall.shared_store.signatures import Distrust, Distrusted, RecordKind, RecordName, open_signed

MOST_PATH_SETS = 8  # of one command; a reader asks for two results of each
MOST_SET_BYTES = 512 * 1024  # of all path sets of a command, signed
MOST_LIST_BYTES = MOST_SET_BYTES + 1024  # of the record that has them; other stores may send more
MOST_RESULT_BYTES = 1 << 30  # of all contents of one result


_ENTRIES = Annotated[list[bytes], Meta(max_length=MOST_PATH_SETS)]


class RunGround(msgspec.Struct, frozen=True, array_like=True):
    """The things that no path tells of, and that a command may ask: its host's name and machine."""

    host: str
    machine: MachineFacts


class SharedPathSet(msgspec.Struct, frozen=True, array_like=True):
    """A path set of a command."""

    format: int
    row: PathSetRow


class ProvedResult(msgspec.Struct, frozen=True, array_like=True):
    """A result with all that has proved it.

    `evidence` is what the writer knew of its shape. `ground` is where the command ran.
    """

    format: int
    weak: bytes
    row: ResultRow
    evidence: Shape
    ground: RunGround


class SharedRefusal(msgspec.Struct, frozen=True, array_like=True):
    """A difference that two results of one shape have shown to a writer."""

    format: int
    difference: str


class Unusable(enum.StrEnum):
    """The reason why a result of a trusted writer is not used here."""

    OTHER = "other"  # it is not what it was asked for
    PLACE = "place"  # it names a path that is none, or has too much content
    PROOF = "proof"  # neither its evidence nor our table proves it
    GROUND = "ground"  # its proof holds for another host or another kind of machine
    REFUSED = "refused"  # its shape was refused


@dataclass(frozen=True, slots=True)
class AskedResult:
    """A result for which a store is asked: a command, a path set, and both strong fingerprints."""

    weak: bytes
    candidate: PathSetRow
    timed: bytes
    blind: bytes

    @property
    def names(self) -> tuple[RecordName, RecordName]:
        """The names of the records in which it may be."""
        return RecordName(RecordKind.RESULT, self.timed), RecordName(RecordKind.RESULT, self.blind)


@dataclass(frozen=True, slots=True)
class ProofHere:
    """The circumstances in which a result of another user has to be proved.

    `shape_of` returns what is known of a shape here. The command could run on any of the `grounds`.
    `now_s` is the present time in seconds since 1970.
    """

    table: KnownTable
    shape_of: Callable[[bytes], Shape]
    grounds: Collection[RunGround]
    now_s: float


def result_name(row: ResultRow) -> RecordName | None:
    """Return the name of the record of a result, or None if it cannot be found by one.

    A result that does not depend on times is found whatever the times of the inputs are.
    """
    strong = row.timed if not (row.is_known_blind and row.blind) else row.blind
    return RecordName(RecordKind.RESULT, strong) if strong else None


def find_obstacle(shared: ProvedResult, asked: AskedResult, here: ProofHere) -> Unusable | None:
    """Return why a result must not be used here, or None if it may."""
    row = shared.row
    by_times = bool(row.timed) and row.timed == asked.timed
    is_asked_for = by_times or (row.is_known_blind and bool(row.blind) and row.blind == asked.blind)
    if shared.weak != asked.weak or row.path_set_id != asked.candidate.id or not is_asked_for or row.result.code:
        return Unusable.OTHER
    if not _has_good_places(row):
        return Unusable.PLACE
    local = here.shape_of(row.shape)
    if local.refused or shared.evidence.refused:
        return Unusable.REFUSED
    shape, is_known = merged_shape(local, shared.evidence), here.table.still_vouches(row)
    if not by_times and not here.table.is_vouched_blind(row, shape):
        return Unusable.PROOF
    is_of_today = is_of_day(row.result, here.now_s)
    if not judge_proof(shape, proof_key(shape, row), is_known=is_known, is_of_today=is_of_today).is_enough:
        return Unusable.PROOF
    # Two equal runs on one machine prove nothing about another kernel or processor.
    return None if is_known or shared.ground in here.grounds else Unusable.GROUND


def evidence_of(row: ResultRow, shape: Shape, *, is_known: bool) -> Shape:
    """Return what is told of a shape together with a result of it.

    A known result needs no proofs of its shape.
    """
    return Shape(sees_times=shape.sees_times) if is_known else shape


def open_result(packed: bytes, name: RecordName, trusted: Mapping[bytes, str]) -> ProvedResult:
    """Return a signed result, whose job names its writer. Raise Distrusted."""
    body, writer = open_signed(packed, name, trusted)
    shared = unpack_value(body, ProvedResult)
    if shared is None or shared.format != FORMAT:
        raise Distrusted(Distrust.FORM)
    result = msgspec.structs.replace(shared.row.result, job=f"{shared.row.result.job} ({writer})")
    return msgspec.structs.replace(shared, row=msgspec.structs.replace(shared.row, result=result))


def is_refusal(packed: bytes, name: RecordName, trusted: Mapping[bytes, str]) -> bool:
    """Return whether a trusted writer has refused a shape. Raise Distrusted."""
    refusal = unpack_value(open_signed(packed, name, trusted)[0], SharedRefusal)
    return refusal is not None and refusal.format == FORMAT


def open_path_sets(
    packed: bytes, name: RecordName, trusted: Mapping[bytes, str]
) -> tuple[tuple[PathSetRow, ...], Counter[Distrust]]:
    """Return the path sets of trusted writers, and how many others there were, by reason."""
    distrusted: Counter[Distrust] = Counter()
    found = []
    for signed in _entries(packed, distrusted):
        try:
            found.append(_open_path_set(signed, name, trusted))
        except Distrusted as error:
            distrusted[error.reason] += 1
    return tuple(found), distrusted


def merged_path_sets(packed: bytes, signed: bytes, name: RecordName, trusted: Mapping[bytes, str]) -> bytes:
    """Return a record with a new path set before the former ones.

    Those of other writers stay, if they are trusted. `packed` may be b"".
    """
    ids, kept, size = set(), [], 0
    for entry in (signed, *_entries(packed, Counter())):
        try:
            row = _open_path_set(entry, name, trusted)
        except Distrusted:
            continue
        size += len(entry)
        if row.id in ids or size > MOST_SET_BYTES:
            continue
        ids.add(row.id)
        kept.append(entry)
    return msgspec.msgpack.encode(kept[:MOST_PATH_SETS])


def packed_record(record: SharedPathSet | ProvedResult | SharedRefusal) -> bytes:
    """Return the body of a record, to be signed."""
    return pack_value(record)


def _entries(packed: bytes, distrusted: Counter[Distrust]) -> Iterable[bytes]:
    if not packed:
        return []
    try:
        if len(packed) <= MOST_LIST_BYTES:  # decoding a long list would hold up the event loop
            entries: list[bytes] = msgspec.msgpack.decode(packed, type=_ENTRIES)
            return entries
    except msgspec.MsgspecError:
        pass
    distrusted[Distrust.FORM] += 1
    return []


def _open_path_set(signed: bytes, name: RecordName, trusted: Mapping[bytes, str]) -> PathSetRow:
    shared = unpack_value(open_signed(signed, name, trusted)[0], SharedPathSet)
    if shared is None or shared.format != FORMAT or pack_path_set(shared.row.path_set)[0] != shared.row.id:
        raise Distrusted(Distrust.FORM)
    return shared.row


def _has_good_places(row: ResultRow) -> bool:
    """Return whether the result names paths, and does not have more content than one may have."""
    changes = row.result.changes
    try:
        check_paths([change.path for change in changes])
        check_paths([change.link_to for change in changes if change.link_to is not None])
        check_paths([path for pair in row.result.carried for path in pair])
    except RemoteProtocolError:
        return False
    return sum(digest.size for digest in row.result.blobs.values()) <= MOST_RESULT_BYTES
