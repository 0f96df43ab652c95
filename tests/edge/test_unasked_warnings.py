"""A test fails if termite warns of something that the test did not ask for."""

import os
import re
import subprocess
import sys
from pathlib import Path

CONFTEST = next(above for above in Path(__file__).resolve().parents if above.name == "tests") / "conftest.py"

TESTS = """
import logging
import pytest

log = logging.getLogger("termite.engine.somewhere")


def test_quiet():
    log.info("all-well job=1")


def test_unasked_warning():
    log.warning("disk-full job=1")


def test_unasked_error():
    log.error("disk-full job=1")


@pytest.mark.logs("disk-full")
def test_asked():
    log.warning("disk-full job=1")


@pytest.mark.logs("disk-full")
def test_another_than_asked():
    log.warning("disk-gone job=1")


@pytest.mark.logs("disk-full")
def test_asked_in_vain():
    pass


def test_caplog(caplog):
    log.warning("disk-full job=1")


@pytest.mark.logs("disk-full")
def test_own_failure():
    assert 1 == 2
"""


def test_only_what_a_test_asks_for_may_be_logged(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_bytes(CONFTEST.read_bytes())
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", "test_it.py"]
    done = subprocess.run(
        [*command, "-c", "/dev/null"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert set(re.findall(r"::test_(\w+) PASSED", done.stdout)) == {"quiet", "asked", "caplog"}, done.stdout
    assert "termite should warn of [], and did of ['disk-full job=1']" in done.stdout
    assert "assert 1 == 2" in done.stdout  # a failure of the test's own is shown first
    assert "5 failed, 3 passed" in done.stdout
