"""Judge a result by its base: the version of a file from which it derives.

Another program may have changed the file while the job ran: another job, a command on the master's
machine, or an editor. If the result took the place of that change, the change would be lost. The
tree must look as if the commands that wrote a file had run one after the other.

A result that equals the file on disk is a conflict too. Two jobs that both raised a counter from 5
to 6 must leave 7.
"""

import enum
import stat

from termite.engine.model import Attr, BaseVersion, Change


class Judgement(enum.Enum):
    """The way in which a result is published, seen from its base."""

    PLACE = "place"  # the disk has the base, or nothing would be lost
    APPEND = "append"  # both may be the base with a tail: then the result's tail is appended to the disk's file
    CONFLICT = "conflict"  # the result derives from a version that is no longer there
    UNKNOWN = "unknown"  # the digest of the file on disk must be found first


def needs_base(change: Change) -> BaseVersion | None:
    """Return the base of a change that must be judged, or None.

    Only contents and removals of regular files are judged, and new symlinks, whatever a worker
    says.
    """
    attr, base = change.attr, change.base
    if attr is None:
        return base
    if stat.S_ISLNK(attr.mode):
        return base if base is not None and base.is_absence else None
    return base if change.content and stat.S_ISREG(attr.mode) else None


def judge(change: Change, base: BaseVersion, there: Attr | None) -> Judgement:
    """Judge a change with this base. `there` is what stands at its path now; None: nothing."""
    new = change.attr
    if there is None:
        return Judgement.PLACE if base.is_absence or new is None else Judgement.CONFLICT
    if base.is_absence:
        return Judgement.PLACE if new is not None and _may_come_twice(new, there) else Judgement.CONFLICT
    if not stat.S_ISREG(there.mode):
        return Judgement.CONFLICT
    if there.size == base.size:
        if base.digest is None:
            return Judgement.PLACE if there.mtime_ns == base.mtime_ns else Judgement.CONFLICT
        if there.digest is None:
            return Judgement.UNKNOWN
        if there.digest == base.digest:
            return Judgement.PLACE
    return Judgement.APPEND if _may_be_tails(change, base, there) else Judgement.CONFLICT


def _may_come_twice(new: Attr, there: Attr) -> bool:
    """Return whether it does not matter that two commands have made an entry where nothing was.

    Two empty files are equal, in whichever order they were made, such as a stamp. But `ln` of an
    empty file may be a lock. Many recipes make the same symlink, by `ln -sf`.
    """
    if stat.S_ISLNK(new.mode):
        return stat.S_ISLNK(there.mode) and new.target == there.target
    return stat.S_ISREG(there.mode) and new.size == there.size == 0 and new.nlink <= 1


def _may_be_tails(change: Change, base: BaseVersion, there: Attr) -> bool:
    """Return whether both contents may be the base with something appended.

    An empty base says nothing: a file that was truncated and written looks the same.
    """
    new = change.attr
    if new is None or new.digest is None or change.link_to is not None or base.digest is None:
        return False
    return 0 < base.size < min(new.size, there.size)
