"""Tests of the checks of a machine, and of their messages."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from termite.engine.errors import UserError
from termite.engine.host import preflight
from termite.engine.host.preflight import Machine, check_fuse, check_machine, check_readable_by_others, check_sandbox

GOOD = Machine(
    kernel="6.1.0-18-amd64",
    filesystems="nodev\tproc\n\text4\nnodev\toverlay\n",
    overlay_can_load=False,
    max_user_namespaces="96365\n",
    unprivileged_userns_clone=None,
    apparmor_restrict=None,
)


def test_a_usual_machine_is_fine() -> None:
    check_machine(GOOD)
    check_machine(replace(GOOD, unprivileged_userns_clone="1\n", apparmor_restrict="0\n"))
    check_machine(replace(GOOD, filesystems="", overlay_can_load=True))
    assert preflight.read_machine().kernel


@pytest.mark.parametrize(
    ("machine", "message", "hint"),
    [
        (replace(GOOD, kernel="5.10.0-28-amd64"), "Linux 5.10.0-28-amd64 is too old", "newer kernel"),
        (replace(GOOD, kernel="4.19"), "is too old", "newer kernel"),
        (replace(GOOD, filesystems="ext4"), "no overlayfs", "modprobe overlay"),
        (replace(GOOD, max_user_namespaces=None), "no user namespaces", "CONFIG_USER_NS"),
        (replace(GOOD, max_user_namespaces="0\n"), "forbidden", "sysctl -w user.max_user_namespaces="),
        (replace(GOOD, unprivileged_userns_clone="0\n"), "forbidden", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (replace(GOOD, apparmor_restrict="1\n"), "forbidden", "apparmor_restrict_unprivileged_userns=0"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(machine: Machine, message: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        check_machine(machine)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("release", "version"), [("6.18.44-x", (6, 18)), ("5.11", (5, 11)), ("10.0.0", (10, 0)), ("?", (0, 0))]
)
def test_a_release_is_a_version(release: str, version: tuple[int, int]) -> None:
    assert preflight.kernel_version(release) == version
    assert preflight.has_tmpfs_upper(release) == (version >= (6, 6))


def test_a_missing_fuse_device_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no .*/fuse .*modprobe fuse; in a container"):
        check_fuse(tmp_path / "fuse", root=False)


def test_a_fuse_device_that_is_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "fuse").touch()
    with pytest.raises(UserError, match="is not a device"):
        check_fuse(tmp_path / "fuse", root=True)


@pytest.mark.parametrize(("root", "hint"), [(False, "chmod 0666"), (True, "in a container")])
def test_a_forbidden_fuse_device_is_reported(monkeypatch: pytest.MonkeyPatch, root: bool, hint: str) -> None:
    def forbidden(path: Path, flags: int) -> int:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(UserError, match=f"may not be opened by this user .*{hint}"):
        check_fuse(Path("/dev/null"), root=root)


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
