"""Find what a job depended on, from the paths that its trace names and the changes that it made.

The kind of the first use decides, together with the state before the job. The results of the job's
calls are unknown, and not needed: a call that left no change was an input, however it ended. For an
output, the state before the job is a dependency as far as it can show in the result.

Call this before the job's changes are published, and after a drain: then the AttrTree has the state
before the job, except for changes by others. `changed_meanwhile` finds these.
"""

import enum
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from termite.engine.model import Attr, Change
from termite.engine.paths import from_below_up, is_within, split
from termite.engine.recall.logic.name_walk import NameWalk, Reached
from termite.engine.recall.logic.overwriters import always_overwrite
from termite.engine.recall.logic.temporary_entries import is_temporary
from termite.engine.recall.logic.traced_paths import AccessKind, JobTrace, PathAccess
from termite.engine.recall.logic.tree_facts import UNKNOWN_SHA256, TreeFacts, UnservedDirectory
from termite.engine.recall.logic.uses import Dependency, PathSet, Use
from termite.engine.tree.logic.times import Timing

# The sandbox makes them, and shows the same to every job. They are no part of the AttrTree.
MADE_BY_SANDBOX = (b"proc", b"sys", b"dev")
MOST_INTERPRETERS = 5  # in a row, as the kernel allows

_K = AccessKind
_NAMES_CHANGE = _K.CREATE | _K.EXCL | _K.MAKE | _K.UNLINK


class Obstacle(enum.StrEnum):
    """A reason why the result of a job cannot be stored."""

    GAP = "gap"  # the trace does not have everything
    LOST = "lost"  # a signal has disturbed the trace
    CHANGED = "changed"  # an input changed while the job ran
    RELATIVE = "relative"  # a script names its interpreter by a relative path
    HIDDEN = "hidden"  # a path through /proc/PID leads to a file whose name is unknown
    PROGRAM = "program"  # the interpreter of a program cannot be found


class NotStorable(Exception):
    """The result of a job cannot be stored, for `obstacle`. `detail` names what is to blame."""

    def __init__(self, obstacle: Obstacle, detail: bytes = b"") -> None:
        super().__init__(obstacle, detail)
        self.obstacle = obstacle
        self.detail = detail


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that has ended on a worker and is not yet published.

    `changes` are those of its result, and `root` is the writable root. `argv` is its command.
    """

    argv: Sequence[bytes]
    trace: JobTrace
    changes: Sequence[Change]
    timing: Timing
    root: bytes


@dataclass(frozen=True, slots=True)
class Dependencies:
    """All that a job depended on.

    `tools` are the files that it executed. `asked` has the paths of /proc, /sys and /dev that it
    named: they may differ between two machines. If `has_set_times`, the job has given a file a time
    that is not the one of writing, which may come from an input.
    """

    path_set: PathSet
    tools: tuple[bytes, ...]
    asked: tuple[bytes, ...]
    has_set_times: bool


def find_dependencies(job: EndedJob, facts: TreeFacts) -> Dependencies:
    """Return what the job depended on.

    Raise FactsMissing if a fact of the tree is missing, and NotStorable if the trace cannot tell.
    """
    if job.trace.gaps:
        raise NotStorable(Obstacle.GAP, job.trace.gaps[0].encode())
    if job.trace.lost:
        raise NotStorable(Obstacle.LOST)
    found = _Finding(job, facts)
    for access in job.trace.accesses:
        found.note(access)
    for use in list(found.places.values()):
        if use.kinds & _K.EXEC and use.before is not None:
            found.note_interpreters(use)
    path_set = found.path_set()
    facts.check()
    return Dependencies(path_set, tuple(found.tools()), tuple(found.asked), _has_set_times(job, found.before))


@dataclass(slots=True)
class _Place:
    """A path without symlinks that the job named, under however many names.

    `at` is the position of its first use in the trace. `before` is what was there before the job.
    """

    real: bytes
    at: int
    before: Attr | None
    first: AccessKind
    kinds: AccessKind
    is_entry: bool = True


@dataclass(slots=True)
class _Finding:
    """The dependencies of a job as far as they are found."""

    job: EndedJob
    facts: TreeFacts
    walk: NameWalk = field(init=False)
    changed: Mapping[bytes, Change] = field(init=False)
    before: dict[bytes, Attr | None] = field(init=False)  # of the changed paths
    places: dict[bytes, _Place] = field(default_factory=dict)
    uses: dict[bytes, Use] = field(default_factory=dict)
    asked: dict[bytes, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.walk = NameWalk(self.facts)
        self.before = {}
        for change in self.job.changes:
            try:
                self.before[change.path] = self.facts.find(change.path)
            except UnservedDirectory:
                self.before[change.path] = None
        self.changed = {
            change.path: change
            for change in self.job.changes
            if not (_is_directory(change.attr) and _is_directory(self.before[change.path]))
        }

    def note(self, access: PathAccess) -> None:
        """Note one access with everything on its way."""
        path = access.path.strip(b"/")
        top = path.partition(b"/")[0]
        if top in MADE_BY_SANDBOX and not is_within(self.job.root, top):
            self._note_asked(path)
            return
        kinds = access.kinds
        try:
            follows = bool(kinds & _K.FOLLOW) or not kinds & _K.NOFOLLOW
            self._note_end(self.walk.reach(path, follows=follows), access)
            if follows and kinds & _K.NOFOLLOW:
                self._note_end(self.walk.reach(path, follows=False), access)
        except UnservedDirectory:
            pass  # `check` raises

    def _note_asked(self, path: bytes) -> None:
        names = path.split(b"/")
        is_through = names[0] == b"proc" and (b"fd" in names[2:-2] or not {b"cwd", b"root"}.isdisjoint(names[2:]))
        if is_through or b".." in names:
            raise NotStorable(Obstacle.HIDDEN, b"/" + path)
        self.asked[path] = None

    def _note_end(self, end: Reached, access: PathAccess) -> None:
        for path, use in end.steps:
            self._add(path, use)
        place = self.places.get(end.real)
        if place is None:
            at = len(self.places)
            self.places[end.real] = _Place(end.real, at, end.attr, access.first, access.kinds, end.is_entry)
        else:
            place.kinds |= access.kinds

    def _add(self, path: bytes, use: Use) -> None:
        if use:
            self.uses[path] = self.uses.get(path, Use(0)) | use

    def tools(self) -> list[bytes]:
        """Return the files that the job executed and that were there before it."""
        return [place.real for place in self.places.values() if place.kinds & _K.EXEC and _is_file(place.before)]

    def note_interpreters(self, place: _Place) -> None:
        """Note the interpreters of a program: a script's, and that program's loader."""
        path, attr = place.real, place.before
        change = self.changed.get(path)
        if change is not None:
            attr = change.attr
        for _ in range(MOST_INTERPRETERS):
            if attr is None or not stat.S_ISREG(attr.mode):
                return
            sha256 = self.facts.sha256(path, attr)
            named = self.facts.interpreter(path, sha256) if sha256 != UNKNOWN_SHA256 else b""
            if not named:
                return
            if not named.startswith(b"/"):
                raise NotStorable(Obstacle.RELATIVE, b"/" + path)
            try:
                end = self.walk.reach(named.strip(b"/"), follows=True)
            except UnservedDirectory:
                return
            self._note_end(end, PathAccess(named, _K.EXEC | _K.FOLLOW, _K.EXEC | _K.FOLLOW))
            path, attr = end.real, end.attr

    def path_set(self) -> PathSet:
        """Return everything that was noted, without the temporary entries of the job."""
        temporary = {place.real for place in self.places.values() if self._is_temporary(place)}
        is_overwriter = always_overwrite(self.tools(), self.job.argv)
        for place in self.places.values():
            change = self.changed.get(place.real)
            if place.is_entry and (change is not None or place.kinds & _NAMES_CHANGE):
                self._add(split(place.real)[0], Use.FILL)
            if change is None:
                self._add(place.real, _use_of_input(place))
            else:
                self._add(place.real, _use_of_output(place, change, is_overwriter))
        self._note_listed_outputs()
        found = (self._dependency(path) for path in self.uses if temporary.isdisjoint(from_below_up(path)))
        return PathSet(tuple(sorted(found, key=lambda dependency: dependency.path)))

    def _is_temporary(self, place: _Place) -> bool:
        is_gone = place.before is None and place.is_entry and place.real not in self.changed
        return is_gone and is_temporary(split(place.real)[1], place.first)

    def _note_listed_outputs(self) -> None:
        """Let it matter whether an output was there if the job may have seen it in a listing.

        The job's own names are left out of listings. This is right only if the name was made or
        removed before its directory was read.
        """
        for path in self.changed:
            listed = self.places.get(split(path)[0])
            if listed is None or not listed.kinds & _K.LIST:
                continue
            place = self.places.get(path)
            if place is None or place.at > listed.at or not place.first & (_NAMES_CHANGE | _K.TRUNC):
                self._add(path, Use.TYPE)

    def _dependency(self, path: bytes) -> Dependency:
        use, mode = self.uses[path], 0
        own: tuple[bytes, ...] = ()
        if use & Use.FRESH:
            attr = self.changed[path].attr
            mode = attr.mode if attr is not None else 0
        if use & Use.LIST:
            own = tuple(sorted(split(changed)[1] for changed in self.changed if split(changed)[0] == path))
        return Dependency(path, int(use), mode, own)


def _use_of_input(place: _Place) -> Use:
    """Return how a job used a path that it did not change."""
    kinds, before, use = place.kinds, place.before, Use(0)
    if before is None:
        return Use.ABSENT if place.is_entry else Use(0)
    if kinds & _K.READLINK or stat.S_ISLNK(before.mode):
        use |= Use.LINK
    # A descriptor of O_PATH can be opened again through /proc, which names no path.
    if kinds & (_K.READ | _K.WRITE | _K.EXEC | _K.TRUNC | _K.OPATH):
        use |= Use.READ
    if kinds & _K.EXEC:
        use |= Use.EXEC
    if kinds & _K.STAT:
        use |= Use.STAT
    # Such a call has failed, or has changed nothing. Otherwise the path would be an output.
    if kinds & (_K.ACCESS | _K.META | _K.CREATE | _K.TRUNC | _K.EXCL | _K.MAKE | _K.OPATH | _K.WRITE):
        use |= Use.MODE
    if kinds & _K.MOVED:
        use |= Use.WHOLE | Use.TIME
    if kinds & _K.CHDIR:
        use |= Use.ENTER
    if kinds & _K.LIST or (kinds & _K.UNLINK and stat.S_ISDIR(before.mode)):
        use |= Use.LIST
    return use or Use.TYPE


def _use_of_output(place: _Place, change: Change, is_overwriter: bool) -> Use:
    """Return how the state before the job can show in what it left at a path."""
    first, kinds, before = place.first, place.kinds, place.before
    if _is_directory(before):
        return Use.TYPE | Use.MODE | Use.LIST
    is_writable = before is None or bool(stat.S_ISREG(before.mode) and before.mode & 0o200)
    is_fresh = first & (_K.CREATE | _K.TRUNC) and not first & (_K.READ | _K.WRITE | _K.EXCL)
    if before is not None and kinds & _K.MOVED:
        use = Use.WHOLE | Use.TIME
    elif _is_file(change.attr) and is_writable and (is_fresh or (is_overwriter and not first & _K.READ)):
        return Use.FRESH
    elif first & (_K.READ | _K.WRITE | _K.READLINK | _K.EXEC | _K.META):
        use = Use.WHOLE
    elif first & _K.UNLINK or (first & _K.MAKE and not first & (_K.STAT | _K.READ)):
        return Use.TYPE
    elif kinds & (_K.READ | _K.WRITE | _K.META | _K.OPATH) and before is not None:
        use = Use.WHOLE
    else:
        use = Use.STAT if before is not None else Use.TYPE
    if before is not None:
        if change.attr is not None and change.attr.mtime_ns == before.mtime_ns:
            use |= Use.TIME
        if kinds & _K.STAT:
            use |= Use.STAT
        if stat.S_ISLNK(before.mode):
            use |= Use.LINK
    return use


def _has_set_times(job: EndedJob, before: Mapping[bytes, Attr | None]) -> bool:
    """Return whether the job has set the time of a file, except to the one that it had."""
    return any(
        change.attr is not None
        and not stat.S_ISDIR(change.attr.mode)
        and not job.timing.is_made_in_job(change.attr.mtime_ns)
        and ((old := before[change.path]) is None or old.mtime_ns != change.attr.mtime_ns)
        for change in job.changes
    )


def _is_directory(attr: Attr | None) -> bool:
    return attr is not None and stat.S_ISDIR(attr.mode)


def _is_file(attr: Attr | None) -> bool:
    return attr is not None and stat.S_ISREG(attr.mode)
