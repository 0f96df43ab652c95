"""Name the first difference between the last run of a job and the tree as it is now.

A difference is for people and for records, so that a word of a command that may be a credential is
never in it.
"""

import enum
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from termite.engine.decide.logic.command_mask import MASK, mask_text
from termite.engine.recall.logic.dependencies import Obstacle
from termite.engine.recall.logic.tree_facts import TreeFacts
from termite.engine.recall.logic.uses import Dependency, PathSet, State, Use, states
from termite.engine.recall.look_up.fingerprints import CommandIdentity
from termite.engine.recall.look_up.observation import Observation
from termite.engine.recall.look_up.stored_rows import LastRun, digests_of_texts


class MissCause(enum.StrEnum):
    """A kind of cause for a miss, in the order in which they are named."""

    NEVER = "never"  # this job was never seen
    ARGUMENT = "argument"  # another word, or something else that is not in the tree
    VARIABLE = "variable"
    TOOL = "tool"  # another program
    CONTENT = "content"  # another content, mode or target
    SHADOW = "shadow"  # a file that was absent and hides another one, or that was there and is gone
    LISTING = "listing"
    TIMES = "times"  # only times differ, and the job has asked for them
    EVICTED = "evicted"
    SHAPE = "shape"  # commands of this shape are not proven yet, or were refused
    GAP = "gap"  # the trace of the last run could not be used, or an input changed while it ran
    OWNERS = "owners"  # the command may show owners of files, which no fingerprint has


class DifferenceKind(enum.StrEnum):
    """The kind of what differs, which says how `old` and `new` of a Difference are to be read."""

    OTHER = "other"
    CAME = "came"  # a path, a variable, or the last words of the command, which are `new`
    WENT = "went"  # the same; the words are `old`
    WORD = "word"  # of the command
    CONTENT = "content"  # the beginnings of digests, in hexadecimal
    TARGET = "target"  # of a symlink
    MODE = "mode"  # type, mode, size, or number of links; types and modes are octal


@dataclass(frozen=True, slots=True)
class Difference:
    """A cause of a miss. `name` is a path, a variable or a word; `old` and `new` are for people.

    Words are `***` if the mask of their commands hides any part of them.

    For GAP, `old` is the value of the `Obstacle` that kept the last run from leaving a result.
    """

    cause: MissCause
    name: bytes = b""
    old: bytes = b""
    new: bytes = b""
    kind: DifferenceKind = DifferenceKind.OTHER


_ORDER = tuple(MissCause)
SHOWN_DIGITS = 12  # of a digest
SHA256_BYTES = 32


def last_run(
    identity: CommandIdentity,
    weak: bytes,
    observation: Observation | None,
    *,
    obstacle: str = "",
    detail: bytes = b"",
    job: str = "",
) -> LastRun:
    """Return what explains the next miss of the job of this name.

    `observation` is None if nobody knows what the job depended on; `obstacle` says why.
    """
    return LastRun(
        argv=identity.argv,
        variables=digests_of_texts(identity.variables),
        others={name: msgspec.msgpack.encode(value) for name, value in identity.others.items()},
        weak=weak,
        path_set_id=observation.row.id if observation is not None else b"",
        states=pack_states(observation.states) if observation is not None else b"",
        obstacle=obstacle,
        detail=detail,
        job=job,
    )


def explain_miss(
    identity: CommandIdentity, last: LastRun | None, path_set: PathSet | None, facts: TreeFacts
) -> Difference:
    """Return the first difference to the last run of the same job.

    `path_set` is the one that `last` names, or None if it is gone. Raise FactsMissing if a fact of
    the tree is missing.
    """
    if last is None:
        return Difference(MissCause.NEVER)
    if found := difference_of_command(last, identity):
        return found
    if path_set is not None and last.states:
        now = states(path_set, facts, with_times=True)
        facts.check()
        if found := difference_of_states(path_set.dependencies, _unpacked(last.states), _unpacked(pack_states(now))):
            return found
    if last.obstacle:
        cause = MissCause.SHAPE if last.obstacle == Obstacle.SHAPE else MissCause.GAP
        return Difference(cause, last.detail, last.obstacle.encode())
    return Difference(MissCause.EVICTED)


def pack_states(found: Iterable[State]) -> bytes:
    """Return the states for a LastRun.

    Digests are cut, because they are compared for people only.
    """
    return msgspec.msgpack.encode([[_cut(part) for part in state] for state in found])


def difference_of_command(last: LastRun, identity: CommandIdentity) -> Difference | None:
    """Return the first difference between the commands themselves, or None."""
    if last.argv != identity.argv:
        return _first_different(last.argv, identity.argv)
    for part, value in identity.others.items():
        if last.others.get(part) != msgspec.msgpack.encode(value):
            return Difference(MissCause.ARGUMENT, part.encode())
    then, now = last.variables, digests_of_texts(identity.variables)
    for name in sorted(then.keys() | now.keys()):
        if then.get(name) != now.get(name):
            kind = DifferenceKind.OTHER if name in then and name in now else _way(is_new=name in now)
            return Difference(MissCause.VARIABLE, name, kind=kind)
    return None


def difference_of_states(
    dependencies: Sequence[Dependency], old: Sequence[State], new: Sequence[State]
) -> Difference | None:
    """Return the first difference between the states of a path set, or None.

    Both lists have the times that the job asked for. There is none if `old` is damaged.
    """
    found = [
        _compare(dependency, before, after)
        for dependency, before, after in zip(dependencies, old, new, strict=False)
        if before != after
    ]
    return min(found, key=lambda difference: _ORDER.index(difference.cause), default=None)


def _compare(dependency: Dependency, old: State, new: State) -> Difference:
    use, path = dependency.use, b"/" + dependency.path
    if not old or not new:
        return Difference(MissCause.SHADOW, path, kind=_way(is_new=not old))
    if use & Use.LIST and (came := _listing_difference(old, new)):
        return Difference(MissCause.LISTING, path, b"", came)
    if _only_time_differs(use, old, new):
        return Difference(MissCause.TIMES, path)
    cause = MissCause.TOOL if use & Use.EXEC else MissCause.CONTENT
    before, after = next(((one, other) for one, other in zip(old, new, strict=False) if one != other), (None, None))
    return Difference(cause, path, _shown(before), _shown(after), _kind_of(before, after, old[0]))


def _way(*, is_new: bool) -> DifferenceKind:
    return DifferenceKind.CAME if is_new else DifferenceKind.WENT


def _kind_of(before: object, after: object, file_type: object) -> DifferenceKind:
    """Return the kind of two different parts of states of a file. A state begins with its type."""
    if isinstance(before, bytes) and isinstance(after, bytes):
        return DifferenceKind.TARGET if file_type == stat.S_IFLNK else DifferenceKind.CONTENT
    are_numbers = isinstance(before, int) and isinstance(after, int)
    return DifferenceKind.MODE if are_numbers else DifferenceKind.OTHER


def _only_time_differs(use: int, old: State, new: State) -> bool:
    """Return whether two states differ in the mtime alone. It follows size and link count."""
    if not use & (Use.STAT | Use.TIME) or len(old) != len(new):
        return False
    different = [at for at, (one, other) in enumerate(zip(old, new, strict=True)) if one != other]
    last = len(old) - 1 - bool(use & Use.FRESH)
    return different == [last] and isinstance(old[last], int) and not use & Use.LIST


def _listing_difference(old: State, new: State) -> bytes:
    """Return the names that came and went, such as `+a.h -b.h`."""
    then, now = set(_names(old)), set(_names(new))
    return b" ".join([*(b"+" + name for name in sorted(now - then)), *(b"-" + name for name in sorted(then - now))])


def _names(state: State) -> Iterator[bytes]:
    for part in state:
        if isinstance(part, tuple | list) and len(part) == 2 and isinstance(part[0], bytes):
            yield part[0]


def _first_different(old: Sequence[bytes], new: Sequence[bytes]) -> Difference:
    """Return the first word of a command that differs, or all words by which one is longer."""
    kind = _way(is_new=len(new) > len(old))
    lost, added = b" ".join(old[len(new) :]), b" ".join(new[len(old) :])
    for one, other in zip(old, new, strict=False):
        if one != other:
            kind, lost, added = DifferenceKind.WORD, one, other
            break
    if _is_masked(lost, old) or _is_masked(added, new):  # both: what one hides, the other may show
        lost, added = (MASK.encode() if words else b"" for words in (lost, added))
    return Difference(MissCause.ARGUMENT, added or lost, lost, added, kind)


def _is_masked(words: bytes, argv: Sequence[bytes]) -> bool:
    """Return whether the mask hides some of the words of a command.

    The whole command is masked: the word behind `--password` does not look like a credential.
    """
    if not words:
        return False
    text, found = (part.decode("utf-8", "surrogateescape") for part in (b" ".join(argv), words))
    return mask_text(text, ()).count(found) < text.count(found)


def _shown(part: object) -> bytes:
    """Return a part of a state for people: a digest in hexadecimal, a mode in octal."""
    if isinstance(part, bytes):
        return part
    return b"%o" % part if isinstance(part, int) else b""


def _cut(part: object) -> object:
    """Return a part of a state, of a digest only the beginning in hexadecimal."""
    return part.hex()[:SHOWN_DIGITS].encode() if isinstance(part, bytes) and len(part) == SHA256_BYTES else part


def _unpacked(packed: bytes) -> list[State]:
    """Return packed states. Values that another version has packed are no states: []."""
    try:
        return [tuple(map(_frozen, state)) for state in msgspec.msgpack.decode(packed, type=list[list[object]])]
    except msgspec.MsgspecError:
        return []


def _frozen(part: object) -> object:
    return tuple(map(_frozen, part)) if isinstance(part, list) else part
