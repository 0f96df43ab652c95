"""Test how a result is judged by the version of the file from which it derives."""

import stat
from hashlib import sha256

import msgspec

from termite.engine.model import Attr, BaseVersion, Change, Digest
from termite.engine.tree.logic.bases import Judgement, judge, needs_base
from tests.unit.tables import each_row

OLD, NEW = 1, 2


def digest_of(content: bytes) -> Digest:
    return Digest(sha256(content).digest(), len(content))


def file(content: bytes, *, is_known: bool = True, mtime_ns: int = NEW) -> Attr:
    return Attr(stat.S_IFREG | 0o644, len(content), mtime_ns, digest_of(content) if is_known else None)


def base(content: bytes, *, is_known: bool = True) -> BaseVersion:
    return BaseVersion(len(content), OLD, digest_of(content) if is_known else None)


def symlink(target: bytes) -> Attr:
    return Attr(stat.S_IFLNK | 0o777, len(target), NEW, target=target)


NOTHING = BaseVersion(-1)
DIRECTORY = Attr(stat.S_IFDIR | 0o755, 0, NEW)


@each_row(
    ("derived_from", "new", "there", "expected"),
    [
        (base(b"5"), file(b"6"), file(b"5"), Judgement.PLACE),
        (base(b"5"), file(b"6"), file(b"7"), Judgement.CONFLICT),
        (base(b"5"), file(b"6"), file(b"6"), Judgement.CONFLICT),
        (base(b"5"), file(b"6"), file(b"5", is_known=False), Judgement.UNKNOWN),
        (base(b"5"), file(b"6"), file(b"10", is_known=False), Judgement.CONFLICT),
        (base(b"5"), file(b"6"), None, Judgement.CONFLICT),
        (base(b"5"), file(b"6"), DIRECTORY, Judgement.CONFLICT),
        (base(b"a\n"), file(b"a\nx\n"), file(b"a\ny\n", is_known=False), Judgement.APPEND),
        (base(b"a\n"), file(b"a\nx\n"), file(b"a\nx\n"), Judgement.APPEND),
        (base(b"a\n"), file(b"a\nx\n"), file(b""), Judgement.CONFLICT),
        (base(b"a\n"), file(b""), file(b"a\ny\n"), Judgement.CONFLICT),
        (base(b""), file(b"x\n"), file(b"y\n"), Judgement.CONFLICT),
        (base(b"a\n", is_known=False), file(b"a\nx\n"), file(b"a\ny\n"), Judgement.CONFLICT),
        (base(b"5", is_known=False), file(b"6"), file(b"7"), Judgement.CONFLICT),
        (base(b"5", is_known=False), file(b"6"), file(b"5", mtime_ns=OLD), Judgement.PLACE),
        (base(b"5"), None, file(b"5"), Judgement.PLACE),
        (base(b"5"), None, file(b"55"), Judgement.CONFLICT),
        (base(b"5"), None, None, Judgement.PLACE),
        (NOTHING, file(b"x"), None, Judgement.PLACE),
        (NOTHING, file(b"x"), file(b"x"), Judgement.CONFLICT),
        (NOTHING, file(b"x"), file(b""), Judgement.CONFLICT),
        (NOTHING, file(b""), file(b""), Judgement.PLACE),
        (NOTHING, file(b""), DIRECTORY, Judgement.CONFLICT),
        (NOTHING, msgspec.structs.replace(file(b""), nlink=2), file(b""), Judgement.CONFLICT),
        (NOTHING, symlink(b"x"), None, Judgement.PLACE),
        (NOTHING, symlink(b"x"), symlink(b"x"), Judgement.PLACE),
        (NOTHING, symlink(b"x"), symlink(b"y"), Judgement.CONFLICT),
        (NOTHING, symlink(b"x"), file(b""), Judgement.CONFLICT),
    ],
)
def test_a_result_is_judged(
    derived_from: BaseVersion, new: Attr | None, there: Attr | None, expected: Judgement
) -> None:
    change = Change(b"f", new, base=derived_from)
    assert judge(change, derived_from, there) is expected


def test_the_tail_of_a_hard_link_is_not_appended() -> None:
    change = Change(b"f", file(b"a\nx\n"), link_to=b"g", base=base(b"a\n"))
    assert judge(change, base(b"a\n"), file(b"a\ny\n")) is Judgement.CONFLICT


def test_contents_and_removals_of_files_and_new_symlinks_are_judged() -> None:
    version = base(b"5")
    assert needs_base(Change(b"f", file(b"6"), base=version)) == version
    assert needs_base(Change(b"f", None, base=version)) == version
    assert needs_base(Change(b"f", file(b"6"))) is None
    assert needs_base(Change(b"f", file(b"5"), content=False, base=version)) is None
    assert needs_base(Change(b"f", DIRECTORY, base=version)) is None
    assert needs_base(Change(b"f", symlink(b"x"), base=version)) is None
    assert needs_base(Change(b"f", symlink(b"x"), base=NOTHING)) == NOTHING
