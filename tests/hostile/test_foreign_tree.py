"""An archive brings a tree that has termite's own names in it, made by somebody else.

The user unpacks it and builds there. All of its files are the user's own then, so owners prove
nothing.
"""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from termite.engine.errors import UserError
from termite.engine.tree.logic.redo_plan import JobEnd, PlaceEntry, Step, Stood
from termite.engine.tree.logic.visibility import STAGING
from termite.engine.tree.publishing.kept_plans.plan_file import PlanFile
from termite.engine.tree.publishing.orphaned_plans import clear_staging
from termite.engine.tree.publishing.staging import IGNORE, Staging

PRIVATE = "the user's own file"


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    """Return the staging directory that the archive has brought; beside the tree is `private`."""
    (tmp_path / "private").write_text(PRIVATE)
    path = tmp_path / "tree" / os.fsdecode(STAGING)
    path.mkdir(parents=True)
    path.chmod(0o700)
    return path


@contextmanager
def master_of(staging: Path) -> Iterator[Staging]:
    """Begin and end as a master of the tree."""
    opened = Staging(bytes(staging.parent).strip(b"/"))
    try:
        clear_staging(staging.parent, opened.fd, opened.plan.label, opened.discarded)
        while opened.discarded:
            opened.discarded.take()
        yield opened
    finally:
        opened.close()


def plant_link(name: str) -> Callable[[Path], None]:
    return lambda staging: (staging / name).symlink_to("../../private")


def plant_fifo(name: str) -> Callable[[Path], None]:
    return lambda staging: os.mkfifo(staging / name)


def plant_directory(name: str) -> Callable[[Path], None]:
    return lambda staging: (staging / name / "d").mkdir(parents=True)


def plant_huge(staging: Path) -> None:
    (staging / "plan-huge").touch()
    os.truncate(staging / "plan-huge", 1 << 40)


PLANTED = {
    f"{kind.__name__}-{name}": kind(name)
    for kind in (plant_link, plant_fifo, plant_directory)
    for name in (".gitignore", "now", "plan-x", "x.area-1", "x.1")
} | {
    "huge plan": plant_huge,
    "unreadable plan": lambda staging: (staging / "plan-x").write_bytes(b"termplan" * 1000),
    "area above": lambda staging: (staging / "x.area-1").symlink_to("../../private"),
    "area elsewhere": lambda staging: (staging / "x.area-1").symlink_to("/../private"),
    "hard link": lambda staging: os.link(staging.parent.parent / "private", staging / "now"),
    "open to others": lambda staging: staging.chmod(0o777),
}


@pytest.mark.logs("staging-not-emptied", "plan-unreadable")
@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
def test_what_an_archive_has_in_the_staging_directory_changes_nothing(
    staging: Path, plant: Callable[[Path], None]
) -> None:
    plant(staging)
    private = staging.parent.parent / "private"
    before = private.stat()
    with master_of(staging) as opened:
        opened.now_ns()
        assert stat.S_IMODE(staging.stat().st_mode) == 0o700
        assert {os.fsencode(name) for name in os.listdir(staging)} == {b"now", IGNORE, opened.plan.name}
        assert (staging / os.fsdecode(IGNORE)).read_bytes() == b"*\n"
    assert private.read_text() == PRIVATE
    assert private.stat().st_mtime_ns == before.st_mtime_ns
    assert os.listdir(staging.parent) == []


def test_a_file_of_the_archive_is_not_written_to(staging: Path) -> None:
    """Such a file may be another name of one of the user."""
    private = staging.parent.parent / "private"
    os.link(private, staging / os.fsdecode(IGNORE))
    with master_of(staging):
        pass
    assert private.read_text() == PRIVATE


@pytest.mark.logs("plan-discarded")
def test_a_plan_of_an_archive_is_not_carried_out(staging: Path) -> None:
    """Whoever has made it knew the boot id: any program of this machine can read that."""
    tree = staging.parent
    victim = tree / "victim"
    victim.write_text(PRIVATE)
    stood = victim.stat()
    (staging / "x.1").write_text("evil")
    directory = os.open(staging, os.O_RDONLY)
    try:
        plan = PlanFile(directory)
        step: Step = PlaceEntry(
            b"victim", b"x.1", Stood(stood.st_dev, stood.st_ino, stood.st_mtime_ns, stood.st_ctime_ns)
        )
        plan.begin(JobEnd(b"\1" * 8, 0, 0, 0, b""), lambda: False, (step,))
        shutil.copy(staging / os.fsdecode(plan.name), staging / "plan-x")
        plan.close()
    finally:
        os.close(directory)
    with master_of(staging):
        assert victim.read_text() == PRIVATE
    assert os.listdir(tree) == ["victim"]


@pytest.mark.needs_root("gives a directory to another user")
def test_the_staging_directory_of_another_user_is_not_used(staging: Path) -> None:
    os.chown(staging, 65534, 65534)
    with pytest.raises(UserError, match="another user has made it"), master_of(staging):
        pass
    assert os.listdir(staging) == []
