"""The leftovers of killed daemons are removed by the next command of the user."""

import fcntl
import json
import os
import resource
import signal
import socket
import sqlite3
import time
from argparse import Namespace
from pathlib import Path

import pytest

from termite.cli.doctor import own_files
from termite.cli.leftovers import footprints, sweep
from termite.cli.leftovers.footprints import (
    LATER,
    MAX_AGE_S,
    dead_footprints,
    footprint,
    is_sweep_due,
    master_places,
    start_sweep,
    worker_places,
)
from termite.cli.subcommands.registry import find_subcommand
from termite.engine.paths import tree_path
from termite.engine.private_directories import locked_directory
from termite.engine.tree.publishing.staging import Staging
from tests.edge.engine.tree.test_closed_plans import LOST, begin_and_end, leave_lost_plan

MOST_S = 0.001  # that a front end may wait for the check


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this test's user have a state directory of its own, and return the one of the files."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    place = [tmp_path / "state" / "termite"]
    monkeypatch.setattr(footprints, "candidates", lambda kind: place)
    monkeypatch.setattr(footprints, "own_directory", lambda kind: place[0])
    monkeypatch.setattr(sweep, "PAUSE_S", 0.0)
    place[0].mkdir(parents=True)
    return place[0] / "running"


def killed(places: dict[str, object]) -> None:
    """Let a daemon with these places be killed."""
    pid = os.fork()
    if pid == 0:
        with footprint(places):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def make_tree(path: Path) -> dict[str, object]:
    """Make a tree as a killed master leaves it, and return the places of that master."""
    path.mkdir()
    (path / "yours").touch()
    for name in (".termite-socket", ".termite-socket.4711"):
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path / name))
    staging = path / ".termite-staging"
    (staging / "0a0b.2").mkdir(parents=True)
    (path.parent / "saving" / "left").mkdir(parents=True, exist_ok=True)
    for name in ("now", "0a0b.1", "0a0b.2/deep"):
        (staging / name).touch()
    return master_places(path / ".termite-socket", path.parent / "hashes")


def test_what_a_killed_master_left_is_removed_and_its_file_too(tmp_path: Path, state: Path) -> None:
    killed(make_tree(tmp_path / "tree"))
    assert is_sweep_due()
    pid = start_sweep()
    assert pid is not None
    os.waitpid(pid, 0)
    assert os.listdir(tmp_path / "tree") == ["yours"]
    assert os.listdir(tmp_path / "saving") == []
    assert os.listdir(state) == []
    assert not is_sweep_due()
    assert start_sweep() is None


def test_what_a_killed_worker_left_is_removed(tmp_path: Path, state: Path) -> None:
    cache, tmpdir = tmp_path / "cache", tmp_path / "tmp"
    for path in (
        cache / "warm" / "left",
        cache / "cas" / "tmp" / "left",
        tmpdir / "termite-worker-left",
        tmpdir / "yours",
    ):
        (path / "deep").mkdir(parents=True)
    living, lock = locked_directory(cache / "warm", "", 0o700)
    killed(worker_places(cache, tmpdir))
    sweep.main()
    assert os.listdir(tmpdir) == ["yours"]
    assert list((cache / "warm").iterdir()) == [living]
    assert list((cache / "cas" / "tmp").iterdir()) == []
    assert os.listdir(state) == []
    os.close(lock)


def test_the_journal_of_a_database_is_taken_in(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        store = sqlite3.connect(tmp_path / "hashes", isolation_level=None)
        store.execute("PRAGMA journal_mode = WAL")
        store.execute("CREATE TABLE hashes (file BLOB)")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert (tmp_path / "hashes-wal").exists()
    killed({"hashes": str(tmp_path / "hashes")})
    sweep.main()
    assert sorted(path.name for path in tmp_path.glob("hashes*")) == ["hashes"]
    with sqlite3.connect(tmp_path / "hashes") as store:
        assert store.execute("SELECT * FROM hashes").fetchall() == []


def test_what_the_sweep_cannot_publish_any_more_is_left_for_the_next_master_to_tell(
    tmp_path: Path, state: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    leave_lost_plan(tree)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tree / ".termite-socket"))
    killed(master_places(tree / ".termite-socket", tmp_path / "hashes"))
    pid = start_sweep()
    assert pid is not None
    os.waitpid(pid, 0)
    assert os.listdir(state) == [], "the sweep is done"
    assert os.listdir(tree / ".termite-staging") == ["discarded"]
    assert begin_and_end(tree) == LOST


def test_the_places_of_a_living_daemon_are_left_alone(tmp_path: Path, state: Path) -> None:
    with footprint(make_tree(tmp_path / "tree")):
        assert not is_sweep_due()
        sweep.main()
        assert (tmp_path / "tree" / ".termite-socket").exists()
        assert len(os.listdir(state)) == 1
    assert os.listdir(state) == []


def test_masters_whose_trees_were_moved_are_listed_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with footprint(make_tree(tmp_path / "tree")), footprint(make_tree(tmp_path / "other")):
        (tmp_path / "tree").rename(tmp_path / "moved")
        (tmp_path / "other").rename(tmp_path / "tree")
        with footprint(master_places(tmp_path / "tree" / ".termite-socket", tmp_path / "hashes")):
            find_subcommand("ls").run(Namespace(json=False))
            texts = [finding.text for finding in own_files.check_own_files({}) if finding.about == "master"]
    assert sum("was moved or removed, and its master" in text for text in texts) == 2, texts
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[-1] for line in lines] == [str(tmp_path / "other"), str(tmp_path / "tree")]
    assert all(line.startswith(f"{os.getpid()} ") and "its tree was moved or removed" in line for line in lines)


def test_a_tree_with_another_master_is_left_to_it(tmp_path: Path, state: Path) -> None:
    places = make_tree(tmp_path / "tree")
    (tmp_path / "tree" / ".termite-socket").unlink()
    killed(places)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "tree" / ".termite-socket"))
        listening.listen()
        sweep.main()
    assert (tmp_path / "tree" / ".termite-staging" / "now").exists()
    assert os.listdir(state) == []


def test_a_tree_whose_new_master_does_not_listen_yet_is_looked_at_again(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its plan is there before its socket, and a file put off would stay for a day."""
    killed(make_tree(tmp_path / "tree"))
    clean = sweep.is_swept
    looks: list[socket.socket] = []

    def clean_before_it_listens(places: dict[str, object]) -> bool:
        looks.append(socket.socket(socket.AF_UNIX))
        if len(looks) == 2:
            looks[-1].bind(str(tmp_path / "tree" / ".termite-socket"))
            looks[-1].listen()
        return clean(places)

    monkeypatch.setattr(sweep, "is_swept", clean_before_it_listens)
    staging = Staging(tree_path(tmp_path / "tree"))
    sweep.main()
    assert (staging.path / "now").exists()
    staging.close()
    assert os.listdir(state) == []


@pytest.mark.needs_root("gives files to another user")
def test_sockets_and_staging_directories_of_another_user_are_left_alone(tmp_path: Path, state: Path) -> None:
    killed(make_tree(tmp_path / "tree"))
    for name in (".termite-socket", ".termite-socket.4711", ".termite-staging"):
        os.chown(tmp_path / "tree" / name, 60800, 60800)
    sweep.main()
    left = {".termite-socket", ".termite-socket.4711", ".termite-staging", "yours"}
    assert set(os.listdir(tmp_path / "tree")) == left
    assert (tmp_path / "tree" / ".termite-staging" / "0a0b.1").exists()
    assert os.listdir(state) == []


def move_away(tmp_path: Path, trouble: str) -> Path:
    """Move a killed master's tree away, and return where it is."""
    away = tmp_path / "away"
    (tmp_path / "tree").rename(away)
    if trouble == "another directory":
        make_tree(tmp_path / "tree")
    if trouble == "a file":
        (tmp_path / "tree").write_text("not a directory")
    return away


@pytest.mark.needs_root("gives files to another user")
@pytest.mark.parametrize("part", ["running", "termite"])
def test_root_goes_nowhere_that_another_user_can_name(tmp_path: Path, state: Path, part: str) -> None:
    killed(make_tree(tmp_path / "tree"))
    owned = state if part == "running" else state.parent
    os.chown(owned, 60800, 60800)
    assert not is_sweep_due()
    sweep.main()
    assert (tmp_path / "tree" / ".termite-socket").exists()
    os.chown(owned, 0, 0)
    assert is_sweep_due()


@pytest.mark.parametrize("trouble", ["gone", "another directory", "a file"])
def test_a_tree_that_was_removed_is_forgotten(tmp_path: Path, state: Path, trouble: str) -> None:
    killed(make_tree(tmp_path / "tree"))
    move_away(tmp_path, trouble)
    sweep.main()
    assert os.listdir(state) == []
    assert trouble != "another directory" or (tmp_path / "tree" / ".termite-staging" / "now").exists()


@pytest.mark.parametrize("trouble", ["gone", "another directory", "a file"])
def test_a_tree_whose_disk_is_not_mounted_is_tried_again_each_day_for_a_month(
    tmp_path: Path, state: Path, trouble: str
) -> None:
    places = make_tree(tmp_path / "tree")
    killed({**places, "device": tmp_path.stat().st_dev + 1})
    away = move_away(tmp_path, trouble)
    sweep.main()
    (name,) = os.listdir(state)
    assert name.startswith(LATER)
    assert (away / ".termite-staging" / "now").exists()
    assert trouble != "another directory" or (tmp_path / "tree" / ".termite-staging" / "now").exists()
    assert not is_sweep_due(), "else each command would start a process"
    now = time.time()
    os.utime(state / name, (now - 90_000, now - 90_000))
    assert is_sweep_due()
    sweep.main()
    assert os.listdir(state) == [name]
    written = json.loads((state / name).read_text())
    (state / name).write_text(json.dumps({**written, "put_off_s": int(now - MAX_AGE_S - 1)}))
    os.utime(state / name, (now - 90_000, now - 90_000))
    sweep.main()
    assert os.listdir(state) == []


def test_a_full_disk_leaves_the_file_of_a_killed_daemon_as_it_is(tmp_path: Path, state: Path) -> None:
    killed({**make_tree(tmp_path / "tree"), "device": tmp_path.stat().st_dev + 1})
    (tmp_path / "tree").rename(tmp_path / "away")
    (name,) = os.listdir(state)
    written = (state / name).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        sweep.main()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(state) == [name] and (state / name).read_bytes() == written
    sweep.main()
    (name,) = os.listdir(state)
    assert name.startswith(LATER) and json.loads((state / name).read_bytes())["put_off_s"]


def test_a_lost_disk_keeps_nobody_from_cleaning_the_others(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()  # a read from it stands for a call that never returns
    clean = sweep.is_swept
    monkeypatch.setattr(sweep, "PATIENCE_S", 0.3)

    def wait_or_clean(places: dict[str, object]) -> bool:
        return bool(os.read(reader, 1)) if "lost" in places else clean(places)

    monkeypatch.setattr(sweep, "is_swept", wait_or_clean)
    killed({"lost": True})
    killed(make_tree(tmp_path / "tree"))
    began = time.monotonic()
    sweep.main()
    assert time.monotonic() - began < 5
    assert os.listdir(tmp_path / "tree") == ["yours"]
    assert len(os.listdir(state)) == 1
    assert not is_sweep_due(), "the process that waits for the disk has the lock"
    os.write(writer, b"x")
    while os.listdir(state):
        os.wait()  # for the sweep; a child of another test may have ended first


def test_a_file_that_a_sweep_takes_before_it_is_locked_is_made_again(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def sweep_and_lock(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        for dead in dead_footprints():
            assert dead.places == {}
            dead.remove()
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", sweep_and_lock)
    with footprint({"cache": "/c"}):
        (path,) = state.iterdir()
        assert json.loads(path.read_text()) == {"cache": "/c", "file": path.stat().st_ino}
    assert os.listdir(state) == []


def test_a_staging_directory_that_a_sweep_removes_under_a_new_master_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open
    staging = tmp_path / ".termite-staging"

    def remove_and_open(path: bytes | str, *rest: object, **options: object) -> int:
        if isinstance(path, bytes) and path.startswith(b"plan-") and staging.exists():
            monkeypatch.setattr(os, "open", opened)
            (staging / ".gitignore").unlink()
            staging.rmdir()
        return opened(path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", remove_and_open)
    mine = Staging(os.fsencode(tmp_path)[1:])
    assert len(list(staging.glob("plan-*"))) == 1
    assert (staging / ".gitignore").read_bytes() == b"*\n"
    mine.close()
    assert not staging.exists()


def test_files_of_other_machines_are_left_alone(tmp_path: Path, state: Path) -> None:
    killed({"cache": "/nowhere", "tmpdir": "/nowhere"})
    (path,) = state.iterdir()
    path.rename(state / f"another-{path.name}")
    assert not is_sweep_due()
    sweep.main()
    assert len(os.listdir(state)) == 1


def test_a_copy_of_a_file_is_not_the_file(state: Path) -> None:
    with footprint({"cache": "/c", "tmpdir": "/t"}):
        (path,) = state.iterdir()
        copy = state / f"{path.name}0"
        copy.write_bytes(path.read_bytes())
        assert not is_sweep_due()
        sweep.main()
        assert copy.exists()
        copy.write_bytes(b"")
        assert is_sweep_due(), "its daemon was killed at once"
        sweep.main()
        assert list(state.iterdir()) == [path]


def test_a_daemon_without_a_place_for_its_state_runs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kind: object) -> Path:
        raise PermissionError

    monkeypatch.setattr(footprints, "own_directory", refuse)
    with footprint({"cache": "/c"}):
        pass


def test_a_front_end_does_not_notice_the_check() -> None:
    from contextlib import ExitStack

    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(footprint({"cache": "/c"}))
        took_s = []
        for _ in range(20):
            began = time.perf_counter()
            assert start_sweep() is None
            took_s.append(time.perf_counter() - began)
    assert min(took_s) < MOST_S
