"""Doctor checks a real disk and a real program."""

from pathlib import Path

import pytest

from termite.engine.errors import UserError
from termite.engine.host import preflight
from termite.engine.host.preflight import check_fuse, check_readable_by_others, check_sandbox


def test_a_missing_fuse_device_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no .*/fuse .*modprobe fuse; in a container"):
        check_fuse(tmp_path / "fuse", root=False)


def test_a_fuse_device_that_is_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "fuse").touch()
    with pytest.raises(UserError, match="is not a device"):
        check_fuse(tmp_path / "fuse", root=True)


def test_a_path_that_the_users_of_jobs_cannot_read_is_reported(tmp_path: Path) -> None:
    closed = tmp_path / "python"
    closed.touch(0o700)
    closed.chmod(0o700)
    with pytest.raises(UserError, match="it is closed to others"):
        check_readable_by_others(closed, "Python")
    closed.chmod(0o755)
    check_readable_by_others(closed, "Python")


def sandbox(tmp_path: Path, script: str) -> Path:
    program = tmp_path / "termite-sandbox"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def test_a_sandbox_that_works_is_fine(tmp_path: Path) -> None:
    check_sandbox(sandbox(tmp_path, 'test "$1" = enter'), None)
    check_sandbox(sandbox(tmp_path, 'test "$2 $3" = "--uid=60800 --gid=60800"'), 60800)


def test_a_sandbox_that_does_not_work_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot make a sandbox: the last line"):
        check_sandbox(sandbox(tmp_path, "echo one >&2; echo the last line >&2; exit 100"), None)
    with pytest.raises(UserError, match="cannot make a sandbox: exit code 3"):
        check_sandbox(sandbox(tmp_path, "exit 3"), None)
    with pytest.raises(UserError, match="cannot be run"):
        check_sandbox(tmp_path / "missing", None)


def test_why_calls_are_not_denied_is_quoted(tmp_path: Path) -> None:
    name = "termite-sandbox"
    assert preflight.why_calls_are_not_denied(sandbox(tmp_path, 'test "$1 $2 $4" = "enter -- deny"')) == ""
    assert preflight.why_calls_are_not_denied(sandbox(tmp_path, f"echo {name}: the reason >&2; exit 1")) == "the reason"
    assert preflight.why_calls_are_not_denied(sandbox(tmp_path, "exit 3")) == "exit code 3"
    assert "missing" in preflight.why_calls_are_not_denied(tmp_path / "missing")


def test_why_jobs_are_not_traced_is_quoted(tmp_path: Path) -> None:
    assert preflight.why_jobs_are_not_traced(sandbox(tmp_path, 'test "$1 $2 $4" = "enter -- trace"')) == ""
    assert preflight.why_jobs_are_not_traced(sandbox(tmp_path, "echo too old >&2; exit 100")) == "too old"


def test_why_calls_are_not_watched_is_quoted(tmp_path: Path) -> None:
    assert preflight.why_calls_are_not_watched(sandbox(tmp_path, 'test "$1 $2 $4" = "enter -- watch"')) == ""
    assert preflight.why_calls_are_not_watched(sandbox(tmp_path, "echo no listener >&2; exit 100")) == "no listener"
