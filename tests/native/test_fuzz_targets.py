"""Test that the fuzz targets accept their seeds, and that the run of one says what it has done."""

import subprocess
import sys

import pytest

from tests.fuzz import __main__ as fuzz
from tests.fuzz.seeds import CORPUS, seeds

pytestmark = pytest.mark.skipif(bool(fuzz.why_not()), reason=f"{fuzz.why_not()} (make fuzz installs it)")


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    fuzz.build()


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_a_target_accepts_its_seeds(target: str) -> None:
    inputs = [str(path) for path in sorted((CORPUS / target).iterdir())]
    assert len(inputs) >= len(seeds()[target])
    ran = subprocess.run([fuzz.PROGRAMS / f"fuzz-{target}", *inputs], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("Executed ") == len(inputs)


def test_a_run_says_what_it_has_done() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", "1", "--target", "fields"]
    ran = subprocess.run(command, cwd=fuzz.ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.startswith("fuzz: fields") and ran.stdout.endswith("no finding\n")


def test_a_finding_is_reported_with_the_command_that_replays_it() -> None:
    run = fuzz.Run("order", 5, 7, 1.0, 77, fuzz.BUILD / "findings/order-crash-1")
    assert "FINDING" in fuzz.describe(run)
    assert fuzz.describe(run).endswith("replay it: build/fuzz/tests/fuzz/fuzz-order build/fuzz/findings/order-crash-1")
