"""Results on file systems that are mounted below the tree. Each scenario has its own mounts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.places import CHECKOUT

UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
SCENARIOS = [
    "results_come_whole",
    "a_bind_mount_is_another_volume",
    "jobs_see_no_area",
    "no_symlink_is_an_area",
    *(
        pytest.param(
            scenario,
            marks=pytest.mark.needs_root("gives a directory to another user"),
        )
        for scenario in ("an_area_of_another_user_is_not_used", "only_a_lower_directory_is_ours")
    ),
    "a_full_disk_refuses_before_anything_is_changed",
    "a_killed_master_is_finished_by_its_launcher",
    "a_killed_master_is_finished_by_the_next_one",
    "an_unmounted_area_is_named",
    "an_unmounted_area_is_discarded_by_the_next_master",
    "nobody_is_kept_from_unmounting",
    "a_mount_point_is_not_removed",
    "a_rename_that_is_refused_all_the_same_is_a_copy",
    "a_link_that_the_mount_refuses_is_another_entry",
    "mounts_are_read_again_only_if_they_change",
]


def can_unshare() -> bool:
    return subprocess.run([*UNSHARE, "true"], capture_output=True, timeout=10).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="no mount namespaces here")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_with_other_file_systems_below_the_tree(scenario: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-m", "tests.edge.engine.tree.mount_scenarios", scenario, os.fspath(tmp_path)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
