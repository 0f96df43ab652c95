"""The package's scripts start again what they have stopped, and its unit has the devices of jobs.

The scripts run as dpkg calls them, with a /run of their own and with a systemctl that notes calls.
"""

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from packing.debian_package import SOURCES
from packing.release import CHECKOUT

WORKER = "termite-worker.service"
UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
SYSTEMCTL = """#!/bin/sh
case $* in
"--quiet is-active "*) [ -e "$RUNNING/$3" ] ;;
"stop "*) rm "$RUNNING/$2" ;;
"start "*) touch "$RUNNING/$2" ;;
daemon-reload) ;;
*) exit 9 ;;
esac
"""
SYSUSERS = """#!/bin/sh
echo made >>"$RUNNING/../users"
"""
can_unshare = subprocess.run([*UNSHARE, "true"], capture_output=True, timeout=10, check=False).returncode == 0
UPGRADE, REMOVE, DECONFIGURE = "prerm upgrade 2", "prerm remove", "prerm deconfigure in-favour other 1"


def run_scripts(directory: Path, calls: Sequence[str]) -> tuple[list[str], bool]:
    """Call scripts in order on a machine whose worker runs.

    Return which units run afterwards, and whether the coordinator's user was made.
    """
    running, programs = directory / "running", directory / "programs"
    running.mkdir()
    programs.mkdir()
    (running / WORKER).touch()
    for name, text in {"systemctl": SYSTEMCTL, "systemd-sysusers": SYSUSERS}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    lines = ["mount -t tmpfs none /run", "mkdir -p /run/systemd/system", *(f"sh {SOURCES}/{call}" for call in calls)]
    env = {"PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin", "RUNNING": str(running)}
    done = subprocess.run(
        [*UNSHARE, "sh", "-ec", "\n".join(lines)], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done
    return sorted(path.name for path in running.iterdir()), (directory / "users").exists()


@pytest.mark.skipif(not can_unshare, reason="no mount namespaces here")
@pytest.mark.parametrize(
    ("calls", "is_running", "has_user"),
    [
        ((UPGRADE,), False, False),
        ((UPGRADE, "postrm upgrade 2", "postinst configure 1"), True, True),
        ((UPGRADE, "postinst abort-upgrade 2"), True, False),
        ((UPGRADE, "postrm abort-upgrade 2", "postinst abort-upgrade 2"), True, False),
        ((REMOVE, "postinst abort-remove"), True, False),
        ((DECONFIGURE, "postinst abort-deconfigure in-favour other 1"), True, False),
        ((DECONFIGURE, "postinst configure 1"), True, True),
        ((REMOVE, "postrm remove", "postinst configure"), False, True),
    ],
)
def test_what_a_package_script_stops_starts_again_unless_the_package_is_removed(
    tmp_path: Path, calls: Sequence[str], is_running: bool, has_user: bool
) -> None:
    assert run_scripts(tmp_path, calls) == ([WORKER] if is_running else [], has_user)


def test_the_unit_of_the_worker_allows_the_devices_that_jobs_need() -> None:
    entry = (CHECKOUT / "native/sandbox/enter.c").read_text()
    unit = (SOURCES / WORKER).read_text()
    needed = {f"{device} rw" for device in re.findall(r'replace_device\("(.+)"\)', entry)}
    assert {"/dev/fuse rw", "/dev/net/tun rw"} <= needed
    assert needed == set(re.findall("^DeviceAllow=(.+)$", unit, re.MULTILINE))
