"""The demo of the README."""

import subprocess
import sys

import pytest

from tests.e2e.places import CHECKOUT


@pytest.mark.timeout(300)
def test_the_demo_builds_lua_remotely_to_the_same_bits() -> None:
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "tools" / "demo.py")], capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "differences" in done.stdout
