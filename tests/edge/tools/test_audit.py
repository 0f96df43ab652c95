"""An audit says whether it has found a hole, or could not ask."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "tools/audit.sh"
ANSWERED = 'while [ "$1" != --output ]; do shift; done; echo \'{"dependencies": [{"name": "holey"}]}\' >"$2"; '


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        (f"{ANSWERED} exit 0", 0, "audit: no pinned package has a known hole"),
        (f"{ANSWERED} exit 1", 1, "holey"),
        ("echo ERROR: cannot connect >&2; exit 1", 3, "audit: NOT DONE: the advisory database gave no answer"),
        ("exit 0", 3, "audit: NOT DONE"),
        ("kill -9 $$", 3, "audit: NOT DONE"),
    ],
)
def test_the_exit_code_tells_a_hole_from_a_silent_database(tmp_path: Path, program: str, code: int, said: str) -> None:
    fake = tmp_path / "pip-audit"
    fake.write_text(f"#!/bin/sh\n{program}\n")
    fake.chmod(0o755)
    done = subprocess.run(
        ["sh", SCRIPT],
        env={"PATH": "/usr/bin:/bin", "AUDIT_PROGRAM": str(fake), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert (done.returncode, said in done.stdout) == (code, True), done.stdout
    assert list(tmp_path.iterdir()) == [fake]
