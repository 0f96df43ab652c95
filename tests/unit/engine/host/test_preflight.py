"""Tests of the checks of a machine, and of their messages."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from termite.engine.errors import UserError
from termite.engine.host import preflight
from termite.engine.host.preflight import Machine, check_fuse, check_machine
from tests.unit.tables import each_row

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


@each_row(
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


@pytest.mark.parametrize(("root", "hint"), [(False, "chmod 0666"), (True, "in a container")])
def test_a_forbidden_fuse_device_is_reported(monkeypatch: pytest.MonkeyPatch, root: bool, hint: str) -> None:
    def forbidden(path: Path, flags: int) -> int:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(UserError, match=f"may not be opened by this user .*{hint}"):
        check_fuse(Path("/dev/null"), root=root)
