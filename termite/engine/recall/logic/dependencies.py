"""Find what a job depended on, from the paths that its trace names and the changes that it made.

The kind of the first use decides, together with the state before the job. The results of the job's
calls are unknown, and not needed: a call that left no change was an input, however it ended. For an
output, the state before the job is a dependency as far as it can show in the result.

Call this before the job's changes are published, and after a drain: then the AttrTree has the state
before the job, except for changes by others. `ConcurrentChanges` finds these.
"""

import enum
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from termite.engine.model import Attr, Change, is_directory
from termite.engine.paths import from_below_up, is_within, split
from termite.engine.recall.logic.name_walk import NameWalk, Reached, Steps
from termite.engine.recall.logic.overwriters import always_overwrite, is_loader
from termite.engine.recall.logic.temporary_entries import is_temporary
from termite.engine.recall.logic.traced_paths import AccessKind, JobTrace, PathAccess
from termite.engine.recall.logic.tree_facts import UNKNOWN_SHA256, TreeFacts, UnservedDirectory
from termite.engine.recall.logic.use_rules import (
    CarriedTime,
    find_carried_times,
    find_kept_times,
    use_of_input,
    use_of_output,
)
from termite.engine.recall.logic.uses import (
    FILL,
    FRESH,
    LIST,
    TIME,
    TYPE,
    WHOLE,
    Dependency,
    PathSet,
    is_present_file,
)
from termite.engine.tree.logic.times import Timing

# The sandbox makes them, and shows the same to every job. They are no part of the AttrTree.
MADE_BY_SANDBOX = (b"proc", b"sys", b"dev")
MOST_INTERPRETERS = 5  # in a row, as the kernel allows

# Plain numbers, which are a hundred times as fast as members of a flag.
_EXECUTED = int(AccessKind.EXEC | AccessKind.FOLLOW)
_EXEC, _LIST, _TRUNC = int(AccessKind.EXEC), int(AccessKind.LIST), int(AccessKind.TRUNC)
_FOLLOW, _NOFOLLOW = int(AccessKind.FOLLOW), int(AccessKind.NOFOLLOW)
_NAMES_CHANGE = int(AccessKind.CREATE | AccessKind.EXCL | AccessKind.MAKE | AccessKind.UNLINK)


class Obstacle(enum.StrEnum):
    """A reason why the result of a job cannot be stored."""

    GAP = "gap"  # the trace does not have everything
    LOST = "lost"  # a signal has disturbed the trace
    CHANGED = "changed"  # an input changed while the job ran
    RELATIVE = "relative"  # a script names its interpreter by a relative path
    HIDDEN = "hidden"  # a path of /proc leads to a file of unknown name, or a changed file has further names
    PROGRAM = "program"  # the interpreter of a program cannot be found
    FACTS = "facts"  # a file or a directory that the job named cannot be read here
    # These come from the job itself.
    EXIT = "exit"  # it has failed, or was ended
    DROPPED = "dropped"  # it wrote outside the tree
    CONFLICT = "conflict"  # others changed the files that it wrote
    SIZE = "size"  # its files or its output are too large
    SHAPE = "shape"  # a command like it has given two results
    CLOCK = "clock"  # it executes a program that reads a clock, or the like


class NotStorable(Exception):
    """The result of a job cannot be stored, for `obstacle`. `detail` names what is to blame."""

    def __init__(self, obstacle: Obstacle, detail: bytes = b"") -> None:
        super().__init__(obstacle, detail)
        self.obstacle = obstacle
        self.detail = detail


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that has ended on a worker and is not yet published.

    `changes` are those of its result, and `root` is the writable root. `argv` is its command, and
    `cwd` the absolute path of its directory.
    """

    argv: Sequence[bytes]
    cwd: bytes
    trace: JobTrace
    changes: Sequence[Change]
    timing: Timing
    root: bytes


@dataclass(frozen=True, slots=True)
class DependencySet:
    """All that a job depended on.

    `tools` are the files that it executed, and the interpreters of scripts. `asked` has the paths
    of /proc, /sys and /dev that it named: they may differ between two machines. If `has_set_times`,
    the job has given a file a time that is not the one of writing, which may come from an input.
    `called` are the names by which it executed programs, such as links to one program. `carried`
    has the outputs that kept the times of their former names.
    """

    path_set: PathSet
    tools: tuple[bytes, ...]
    asked: tuple[bytes, ...]
    has_set_times: bool
    called: tuple[bytes, ...] = ()
    carried: tuple[CarriedTime, ...] = ()


def find_dependencies(job: EndedJob, facts: TreeFacts) -> DependencySet:
    """Return what the job depended on.

    Raise FactsMissing if a fact of the tree is missing, and NotStorable if the trace cannot tell.
    """
    if job.trace.gaps:
        raise NotStorable(Obstacle.GAP, job.trace.gaps[0].encode())
    if job.trace.lost:
        raise NotStorable(Obstacle.LOST)
    found = _Finding(job, facts)
    found.note(PathAccess(job.cwd, AccessKind.CHDIR, AccessKind.CHDIR))
    for access in job.trace.accesses:
        found.note(access)
    # Otherwise nothing is there: a search in PATH has tried to execute it. All are found before an
    # interpreter is noted: the loader is none of them, although linkers read it, too.
    executed = [
        place
        for place in found.places.values()
        if place.kinds & _EXEC and (is_present_file(place.before) or place.kinds & _NAMES_CHANGE)
    ]
    for place in executed:
        found.tools[place.real] = None
        found.note_interpreters(place)
    carried = found.carried_times()
    path_set = found.path_set(carried)
    facts.check()
    called = tuple(access.path.strip(b"/") for access in job.trace.accesses if int(access.kinds) & _EXEC)
    has_set_times = _has_set_times(job, found.before, {pair.output for pair in carried})
    return DependencySet(path_set, tuple(found.tools), tuple(found.asked), has_set_times, called, carried)


@dataclass(slots=True)
class _NamedPlace:
    """A path without symlinks that the job named, under however many names.

    `at` is the position of its first use in the trace. `before` is what was there before the job.
    """

    real: bytes
    at: int
    before: Attr | None
    first: int
    kinds: int
    is_entry: bool


@dataclass(slots=True)
class _Finding:
    """The dependencies of a job as far as they are found."""

    job: EndedJob
    facts: TreeFacts
    walk: NameWalk = field(init=False)
    changed: Mapping[bytes, Change] = field(init=False)
    before: dict[bytes, Attr | None] = field(init=False)  # of the changed paths
    places: dict[bytes, _NamedPlace] = field(default_factory=dict)
    uses: dict[bytes, int] = field(default_factory=dict)
    asked: dict[bytes, None] = field(default_factory=dict)
    tools: dict[bytes, None] = field(default_factory=dict)
    noted: dict[int, Steps] = field(default_factory=dict)

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
            if not (is_directory(change.attr) and is_directory(self.before[change.path]))
        }

    def note(self, access: PathAccess) -> None:
        """Note one access with everything on its way."""
        path = access.path.strip(b"/")
        top = path.partition(b"/")[0]
        if top in MADE_BY_SANDBOX and not is_within(self.job.root, top):
            self._note_asked(path)
            return
        first, kinds = int(access.first), int(access.kinds)
        try:
            follows = bool(kinds & _FOLLOW) or not kinds & _NOFOLLOW
            self._note_end(self.walk.reach(path, follows=follows), first, kinds)
            if follows and kinds & _NOFOLLOW:
                self._note_end(self.walk.reach(path, follows=False), first, kinds)
        except UnservedDirectory:
            pass  # `check` raises

    def _note_asked(self, path: bytes) -> None:
        names = path.split(b"/")
        is_through = names[0] == b"proc" and (b"fd" in names[2:-2] or not {b"cwd", b"root"}.isdisjoint(names[2:]))
        if is_through or b".." in names:
            raise NotStorable(Obstacle.HIDDEN, b"/" + path)
        self.asked[path] = None

    def _note_end(self, end: Reached, first: int, kinds: int) -> None:
        if id(end.steps) not in self.noted:  # the walk has one object for all files of a directory
            self.noted[id(end.steps)] = end.steps
            for path, use in end.steps:
                self._add(path, use)
        place = self.places.get(end.real)
        if place is None:
            self.places[end.real] = _NamedPlace(end.real, len(self.places), end.attr, first, kinds, end.is_entry)
        else:
            place.kinds |= kinds

    def _add(self, path: bytes, use: int) -> None:
        if use:
            self.uses[path] = self.uses.get(path, 0) | use

    def note_interpreters(self, place: _NamedPlace) -> None:
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
            self._note_end(end, _EXECUTED, _EXECUTED)
            if not is_loader(end.real):
                self.tools[end.real] = None
            path, attr = end.real, end.attr

    def carried_times(self) -> tuple[CarriedTime, ...]:
        """Return the outputs that have the times of files of before."""
        kinds = {path: self.places[path].kinds for path in self.changed if path in self.places}
        carried = find_carried_times(self.changed, self.before, kinds, self.facts)
        return (*carried, *find_kept_times(self.changed, self.before, self.tools))

    def path_set(self, carried: Sequence[CarriedTime] = ()) -> PathSet:
        """Return everything that was noted, without the temporary entries of the job."""
        temporary = {place.real for place in self.places.values() if self._is_temporary(place)}
        is_overwriter = always_overwrite(self.tools, self.job.argv)
        for place in self.places.values():
            change = self.changed.get(place.real)
            if place.is_entry and (change is not None or place.kinds & _NAMES_CHANGE):
                self._add(split(place.real)[0], FILL)
            if change is None:
                self._add(place.real, use_of_input(place.kinds, place.before, is_entry=place.is_entry))
            else:
                self._add(place.real, self._use_of_output(place, change, is_overwriter=is_overwriter))
        for path in self.changed.keys() - self.places.keys():  # nobody knows how it came about
            self._add(path, TYPE if self.before[path] is None else WHOLE | TIME)
        for _, source in carried:
            self.uses[source] &= ~TIME
        self._note_listed_outputs()
        self._refuse_further_names()
        paths = sorted(self.uses)
        if temporary:
            paths = [path for path in paths if temporary.isdisjoint(from_below_up(path))]
        return PathSet(tuple(map(self._dependency, paths)))

    def _use_of_output(self, place: _NamedPlace, change: Change, *, is_overwriter: bool) -> int:
        directory = self.facts.find(split(place.real)[0]) if place.is_entry else None
        return use_of_output(
            place.first,
            place.kinds,
            place.before,
            change.attr,
            is_overwriter=is_overwriter,
            is_closed=directory is not None and not directory.mode & 0o200,
        )

    def _is_temporary(self, place: _NamedPlace) -> bool:
        is_gone = place.before is None and place.is_entry and place.real not in self.changed
        return is_gone and is_temporary(split(place.real)[1], place.first)

    def _note_listed_outputs(self) -> None:
        """Let it matter whether an output was there if the job may have seen it in a listing.

        The job's own names are left out of listings. This is right only if the name was made or
        removed before its directory was read.
        """
        for path in self.changed:
            listed = self.places.get(split(path)[0])
            if listed is None or not listed.kinds & _LIST:
                continue
            place = self.places.get(path)
            if place is None or place.at > listed.at or not place.first & (_NAMES_CHANGE | _TRUNC):
                self._add(path, TYPE)

    def _refuse_further_names(self) -> None:
        """Raise NotStorable if a file lives on in the result that had more than one name.

        Nobody knows its other names, and the next time they may be others.
        """
        for path, use in self.uses.items():
            place = self.places.get(path)
            before = place.before if place is not None else self.before.get(path)
            if use & WHOLE and before is not None and is_present_file(before) and before.nlink > 1:
                raise NotStorable(Obstacle.HIDDEN, b"/" + path)

    def _dependency(self, path: bytes) -> Dependency:
        use, mode = self.uses[path], 0
        own: tuple[bytes, ...] = ()
        if use & FRESH:
            attr = self.changed[path].attr
            mode = attr.mode if attr is not None else 0
        if use & LIST:
            own = tuple(sorted(split(changed)[1] for changed in self.changed if split(changed)[0] == path))
        return Dependency(path, use, mode, own)


def _has_set_times(job: EndedJob, before: Mapping[bytes, Attr | None], carried: Collection[bytes]) -> bool:
    """Return whether the job has set the time of a file, except to the one that it had.

    The outputs that are `carried` do not count.
    """
    return any(
        change.attr is not None
        and change.path not in carried
        and not stat.S_ISDIR(change.attr.mode)
        and not job.timing.is_made_in_job(change.attr.mtime_ns)
        and ((old := before[change.path]) is None or old.mtime_ns != change.attr.mtime_ns)
        for change in job.changes
    )
