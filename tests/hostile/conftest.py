"""Attacks that were held off are reported by this word: `pytest -v tests/hostile`."""

import pytest

from tests.e2e.conftest import make_place as make_place


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Report an attack as HELD or BROKEN."""
    if report.when == "call" and report.nodeid.startswith("tests/hostile/") and not report.skipped:
        return ("passed", ".", "HELD") if report.passed else ("failed", "F", "BROKEN")
    return None
