"""The doctor says why a directory of the user is not used, and what mends that."""

from pathlib import Path

import pytest

from termite.cli.doctor import own_files
from termite.cli.doctor.finding import Level
from termite.cli.doctor.own_files import check_own_files


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_files, "own_directory", lambda kind: tmp_path)
    monkeypatch.setattr(own_files, "LEAST_BYTES", 1 << 60)
    found = next(finding for finding in check_own_files({}) if finding.about == "state")
    assert found.level is Level.WARNING and "are free, so that records" in found.text and str(tmp_path) in found.mend


@pytest.mark.parametrize(
    ("below", "reason", "mend"),
    [
        ("", "it is no directory", "mv {top}/termite {top}/termite.old"),
        ("termite", "it cannot be made", "unset XDG_STATE_HOME"),
    ],
)
def test_a_state_directory_that_is_not_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str, reason: str, mend: str
) -> None:
    (tmp_path / "termite").write_text("in the way")
    (tmp_path / "used").mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / below))
    monkeypatch.setattr(own_files, "own_directory", lambda kind: tmp_path / "used")  # not one in /var/tmp
    found = next(finding for finding in check_own_files({}) if finding.about == "state")
    assert found.level is Level.WARNING and found.mend == mend.format(top=tmp_path)
    assert found.text.startswith(f"{tmp_path / below}/termite: {reason}; {tmp_path}/used is used instead")
