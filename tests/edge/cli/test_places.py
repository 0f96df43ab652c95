"""Logs and caches have a place, even without a home or with one that cannot be written."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from termite.cli.client import find_socket
from termite.cli.daemons import default_tmpdir, run_daemon
from termite.cli.logs.log_settings import set_up_logging
from termite.cli.places import CACHE, STATE, candidates, home, own_directory, tree_name
from termite.engine.errors import UserError

EVERYWHERE = Path(f"/var/tmp/termite-{os.geteuid()}")


def test_the_users_choice_is_taken_if_it_is_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    assert candidates(CACHE, {"XDG_CACHE_HOME": "/c"})[0] == Path("/c/termite")
    assert candidates(CACHE, {"XDG_CACHE_HOME": "c"})[0] == Path("/home/u/.cache/termite")
    assert candidates(STATE, {})[0] == Path("/home/u/.local/state/termite")


@pytest.mark.parametrize("named", ["", "relative", "/nonexistent"])
def test_there_is_a_place_without_a_home(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("HOME", named)
    assert home().is_absolute()
    assert candidates(CACHE, {})[1] == EVERYWHERE / ".cache"


def test_the_first_place_that_can_be_written_is_made(tmp_path: Path) -> None:
    made = own_directory(CACHE, {"XDG_CACHE_HOME": str(tmp_path / "a" / "b")})
    assert made == tmp_path / "a" / "b" / "termite"
    assert made.stat().st_mode & 0o077 == 0


def test_each_tree_has_a_file_name_of_its_own() -> None:
    assert tree_name(Path("/home/u/project")) == "home-u-project"
    long = "/" + "d/" * 200
    roots = ["/a/b-c", "/a-b/c", "/a/b/c", "/", "/root", "/-", f"{long}x/y", f"{long}x-y", f"/e{long}x/y"]
    names = [tree_name(Path(root)) for root in roots]
    assert len(set(names)) == len(roots)
    assert all(len(name) < 200 and "/" not in name for name in names)


def test_where_no_place_can_be_written_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("termite.cli.places.candidates", lambda kind, env: [tmp_path / "file" / "x"])
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        own_directory(CACHE, {})


def test_a_daemon_can_enter_its_own_directories_whatever_the_callers_umask(capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        seen.append(os.umask(0o022))
        task_status.started("here")

    before = os.umask(0o777)
    try:
        assert run_daemon("termite-test", serve, "serves {address}", {}) == 0
    finally:
        os.umask(before)
    assert seen == [0o022]


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_program_with_closed_standard_files_says_no_traceback(tmp_path: Path, closed: str) -> None:
    command = f'"$0" -c "import sys; from termite import cli; sys.exit(cli.ctl_command())" status {closed}'
    said = subprocess.run(["sh", "-c", command, sys.executable], cwd=tmp_path, capture_output=True, timeout=20)
    assert said.returncode == 100
    assert b"Traceback" not in said.stderr
    assert not said.stdout


@pytest.fixture
def his(tmp_path: Path) -> Path:
    """Return a directory of another user."""
    (tmp_path / "his").mkdir(mode=0o777)
    os.chown(tmp_path / "his", 61234, -1)
    return tmp_path / "his"


@pytest.mark.attack
@pytest.mark.needs_root("gives a directory to another user")
def test_root_keeps_nothing_below_the_directory_of_another_user(his: Path) -> None:
    """Test what `sudo -E` does: $HOME and $TMPDIR are those of the user who called it."""
    made = own_directory(CACHE, {"XDG_CACHE_HOME": str(his)})
    assert made == EVERYWHERE / ".cache"
    assert os.listdir(his) == []


@pytest.mark.attack
@pytest.mark.needs_root("gives a directory to another user")
def test_a_place_in_var_tmp_that_another_user_made_first_is_refused(his: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("termite.cli.places.candidates", lambda kind, env: [his / ".cache"])
    with pytest.raises(UserError, match="his belongs to user 61234"):
        own_directory(CACHE, {})
    assert os.listdir(his) == []


@pytest.mark.attack
@pytest.mark.needs_root("gives a directory to another user")
def test_the_scratch_directory_of_another_user_is_not_used(his: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(his))
    assert default_tmpdir() == Path("/var/tmp")


@pytest.mark.attack
@pytest.mark.needs_root("gives a directory to another user")
def test_a_log_is_not_written_where_another_user_could_exchange_it(his: Path) -> None:
    with pytest.raises(UserError, match=r"belongs to user 61234.*-logfile"):
        set_up_logging("info", his / "log")
    assert os.listdir(his) == []


@pytest.mark.attack
def test_a_symlink_is_no_socket_of_a_master(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "other" / ".termite-socket"))
        (tmp_path / ".termite-socket").symlink_to("other/.termite-socket")
        assert find_socket(tmp_path / "other", {}) == tmp_path / "other" / ".termite-socket"
        assert find_socket(tmp_path, {}) is None
