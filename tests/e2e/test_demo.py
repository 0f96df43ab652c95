"""The demo of the README."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.places import CHECKOUT


@pytest.mark.timeout(300)
def test_the_demo_builds_lua_remotely_to_the_same_bits(tmp_path: Path) -> None:
    own = {name: str(tmp_path / name) for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME")}  # nothing stays in the home
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "tools" / "demo.py")],
        env=os.environ | own,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "differences" in done.stdout
