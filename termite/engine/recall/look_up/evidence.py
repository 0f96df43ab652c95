"""Decide which results may be used: those of commands that have shown that they repeat themselves.

No trace shows that a command depends on the time, on random numbers or on the order of its threads.
Therefore a result is used only in these cases:

* The command is a known one, of which somebody has vouched.
* The same strong fingerprint was executed twice with equal results, in two sandboxes.
* Three other instances of its *shape* have proved this, and none has ever differed. A shape is the
  command with its tools by content, and without the names of its files.

Two runs of one day do not show that a command asks for the date. Their proof holds for results of
this day. Runs of two days prove it for good.

After one difference, a shape is refused for ever. No runs prove that the times of files do not
matter: they may have been of one minute, and `ls -l` shows no more. Only the table vouches for it.
"""

import enum
import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from termite.engine.paths import is_within
from termite.engine.recall.look_up.stored_rows import RecordedResult, ResultRow

APART_S = 2.0  # a file's time, or a date in a text, has another second then
PROOFS_OF_SHAPE = 3
AUDIT_EVERY = 200  # one hit of so many is executed all the same, and compared

# A part of a word that looks like the name of a file is left out of a shape. The letters of an
# option before it are kept.
_PARTS = re.compile(rb"([\s=:,]+)")
_OPTION = re.compile(rb"--?[A-Za-z]")
# Programs whose behaviour lies in a file that they read. The shape of their commands is the
# command.
_INTERPRETERS = re.compile(
    rb"(?:ba|da|k|z|a|tc|c|mk|fi|pdk|ya|pw)?sh|busybox|toybox|(?:micro|i)?python[0-9.]*|pypy[0-9.]*|(?:mini)?perl[0-9.]*"
    rb"|m?ruby[0-9.]*|node|nodejs|bun|deno|qjs|java|kotlin|scala|groovy|clojure|(?:mini)?lua(?:jit)?[-0-9.]*|buildvm"
    rb"|tclsh[0-9.]*|wish[0-9.]*|expect|php[0-9.]*|(?:[gmn]|original-)?awk|sed|m4|bc|dc|guile.*|emacs.*|julia.*|octave.*"
    rb"|R|Rscript"
    rb"|xsltproc|xmllint|saxon.*|escript|erl|elixir|iex|beam.*|ghc.*|runghc|ocaml.*|swipl.*|sbcl|clisp|racket|gforth|gnuplot.*"
    rb"|(?:pdf|xe|lua|lualatex|hb)?(?:la)?tex|(?:e|u?p|lua|lua(?:jit|hb))?tex.*|context|mf|mpost|bibtex.*|biber|makeindex|texi2.*|gs|jq|yq"
    rb"|make|gmake|bmake|ninja|ninja-build|samu|cmake|ctest|meson|scons|env|xargs|find|parallel|go|cargo|rustc|dotnet|mono|qemu-.*"
)


class Proof(enum.StrEnum):
    """The reason why a result may be used or may not."""

    KNOWN = "known"
    TWICE = "twice"  # this very result came twice
    SHAPE = "shape"  # other commands of its shape repeat themselves
    UNPROVEN = "unproven"
    REFUSED = "refused"

    @property
    def is_enough(self) -> bool:
        """Return whether the result may be used."""
        return self in (Proof.KNOWN, Proof.TWICE, Proof.SHAPE)


class Shape(msgspec.Struct, frozen=True, array_like=True):
    """The knowledge of the commands of one shape.

    `proven` has strong fingerprints that were executed twice with equal results. `lasting` has
    those of which the two runs were of different days; of both only as many as are needed. If
    `sees_times`, results have differed together with times. `refused` names the first difference
    between two results of the same fingerprint, or is "".
    """

    proven: tuple[bytes, ...] = ()
    sees_times: bool = False
    refused: str = ""
    lasting: tuple[bytes, ...] = ()


class Execution(msgspec.Struct, frozen=True, array_like=True):
    """One execution of a command: when it ended, in seconds since 1970, and in which sandbox."""

    ended_s: float
    sandbox: str
    took_s: float = 0.0

    @property
    def days(self) -> frozenset[tuple[int, ...]]:
        """The days on which it ran, those of the local time and of UTC."""
        return _days(self.ended_s) | _days(self.ended_s - self.took_s)


NEW_SHAPE = Shape()


def shape_id(
    argv: Sequence[bytes], tools: Mapping[bytes, bytes], *, root: bytes = b"", is_whole: bool = False
) -> bytes:
    """Return the identity of a command's shape: 16 bytes.

    `tools` has the SHA-256 of the programs that it executed, by path. In the words, what looks like
    the name of a file is left out. If an interpreter is among the programs, nothing is left out:
    one script proves nothing about another. Nobody knows whether a program in the tree below `root`
    is an interpreter. Nor is anything left out if the shape `is_whole`.
    """
    is_own = any(is_within(path.strip(b"/"), root.strip(b"/")) for path in tools) if root else False
    is_interpreted = is_whole or is_own or any(map(is_interpreter, tools)) or not tools
    words = list(argv) if is_interpreted else [_without_files(word) for word in argv]
    return hashlib.sha256(msgspec.msgpack.encode((words, sorted(tools.values())))).digest()[:16]


def is_interpreter(path: bytes) -> bool:
    """Return whether the behaviour of a program lies in a file that it reads."""
    return _INTERPRETERS.fullmatch(path.rpartition(b"/")[2]) is not None


def proof_key(shape: Shape, row: ResultRow) -> bytes:
    """Return the fingerprint by which a shape knows a result, or b"" if nothing can prove it.

    Runs that differ in times alone have the same one: equal results prove as much then as those of
    runs that do not differ at all. If times change the results of the shape, each has its own.
    """
    return row.timed if shape.sees_times or not row.blind else row.blind


def execution_of(result: RecordedResult) -> Execution:
    """Return the execution that gave a result."""
    return Execution(result.at_s, result.job, max(result.ended_ns - result.started_ns, 0) / 1e9)


def is_of_day(result: RecordedResult, now_s: float) -> bool:
    """Return whether the date was, during the whole run, the one that it is now."""
    return execution_of(result).days == _days(now_s)


def judge_proof(shape: Shape, strong: bytes, *, is_known: bool, is_of_today: bool) -> Proof:
    """Return whether the result with this strong fingerprint may be used, and why.

    `is_of_today`: the command was executed on the present day (`is_of_day`).
    """
    if shape.refused:
        return Proof.REFUSED
    if is_known:
        return Proof.KNOWN
    proven = shape.proven if is_of_today else shape.lasting
    if strong and strong in proven:
        return Proof.TWICE
    return Proof.SHAPE if len(proven) >= PROOFS_OF_SHAPE else Proof.UNPROVEN


def with_second_run(shape: Shape, strong: bytes, first: Execution, second: Execution, difference: str) -> Shape:
    """Return the shape after the same strong fingerprint was executed again.

    `difference` is that of the results, or "". Two runs at the same time, or in one sandbox, prove
    nothing if they are equal.
    """
    if difference:
        return refused_shape(shape, difference)
    if abs(second.ended_s - first.ended_s) < APART_S or first.sandbox == second.sandbox:
        return shape
    proven, lasting = _with_one(shape.proven, strong), shape.lasting
    if first.days.isdisjoint(second.days):
        lasting = _with_one(lasting, strong)
    return msgspec.structs.replace(shape, proven=proven, lasting=lasting)


def with_other_times(shape: Shape, difference: str) -> Shape:
    """Return the shape after a run that differed from an earlier one in times of inputs alone.

    If the results differ, such commands depend on times, or do not repeat themselves. Nobody knows
    which, so no table vouches for blindness then.
    """
    return msgspec.structs.replace(shape, sees_times=True) if difference else shape


def refused_shape(shape: Shape, difference: str) -> Shape:
    """Return the shape after a difference. The first one is kept."""
    return shape if shape.refused else Shape(refused=difference)


def merged_shape(one: Shape, other: Shape) -> Shape:
    """Return what two masters know of a shape together. A refusal wins."""
    if one.refused or other.refused:
        return Shape(refused=one.refused or other.refused)
    proven = tuple(dict.fromkeys((*one.proven, *other.proven)))
    lasting = tuple(dict.fromkeys((*one.lasting, *other.lasting)))
    return Shape(
        proven[:PROOFS_OF_SHAPE],
        one.sees_times or other.sees_times,
        lasting=lasting[:PROOFS_OF_SHAPE],
    )


def is_audit_due(hits: int) -> bool:
    """Return whether the hit of this number, from 1, is to be executed and compared."""
    return hits % AUDIT_EVERY == 0


def difference_of_results(old: RecordedResult, new: RecordedResult) -> str:
    """Return the first difference between two results for people, or "".

    Times, usage and the order of stdout relative to stderr do not count. Changes are compared by
    path, because their order may depend on the worker.
    """
    if old.code != new.code:
        return f"exit code {old.code}, then {new.code}"
    if old.stdin_offset != new.stdin_offset:
        return "the position in the standard input"
    for fd, name in ((1, "stdout"), (2, "stderr")):
        one, other = (b"".join(piece.content for piece in result.output if piece.fd == fd) for result in (old, new))
        if one != other:
            return f"{name} at byte {first_different_byte(one, other)}"
    then, now = (_by_path(result) for result in (old, new))
    for path in sorted(then.keys() | now.keys()):
        if then.get(path) != now.get(path):
            shown = path.decode(errors="backslashreplace")
            return f"/{shown} differs" if path in then and path in now else f"/{shown} is in one result only"
    return ""


def first_different_byte(one: bytes, other: bytes) -> int:
    """Return the offset of the first byte in which two contents differ; they must differ."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _without_files(word: bytes) -> bytes:
    parts = _PARTS.split(word)
    for at in range(0, len(parts), 2):  # between them are the separators
        part = parts[at]
        if b"." in part or b"/" in part:
            option = _OPTION.match(part) if at == 0 else None
            parts[at] = (option[0] if option else b"") + b"*"
    return b"".join(parts)


def _with_one(proofs: tuple[bytes, ...], strong: bytes) -> tuple[bytes, ...]:
    is_needed = strong and strong not in proofs and len(proofs) < PROOFS_OF_SHAPE
    return (*proofs, strong) if is_needed else proofs


def _days(at_s: float) -> frozenset[tuple[int, ...]]:
    """Return the local day and that of UTC: nobody knows which one a command asks for."""
    local, utc = datetime.fromtimestamp(at_s), datetime.fromtimestamp(at_s, UTC)
    return frozenset(((0, local.toordinal()), (1, utc.toordinal())))


def _by_path(result: RecordedResult) -> dict[bytes, tuple[object, ...]]:
    found: dict[bytes, tuple[object, ...]] = {}
    for change in result.changes:
        attr = change.attr
        if attr is None:
            found[change.path] = ()
        elif change.content:
            found[change.path] = (attr.mode, attr.digest, attr.target, change.link_to)
        else:
            found[change.path] = (attr.mode,)
    return found
