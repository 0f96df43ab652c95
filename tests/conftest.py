"""Set up what every test needs: a known umask, known signals, and no unasked warning.

Somebody may start the tests with `umask 077; make test &`.
"""

import logging
import os
import signal
from collections import Counter
from collections.abc import Generator, Mapping

import pytest
from hypothesis import settings

# `make check` makes few examples of each property, and `make test` the hundred that are usual.
settings.register_profile("quick", max_examples=20)

os.umask(0o022)
# A shell without job control lets what it runs in the background ignore the signals of the
# keyboard. nohup lets it ignore the hang-up.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGQUIT, signal.SIGHUP):
    signal.signal(_number, signal.SIG_DFL)

# Tests of whole programs: their daemons warn in processes of their own.
WHOLE_PROGRAMS = ("tests/hostile/", "tests/e2e/", "tests/front_ends/", "tests/native/")

# Files that take long for the number of their tests, the longest first. A parallel run begins with
# them, so that at its end no worker waits for the other one.
LONG_FILES = (
    "tests/faults/test_call_sweeps.py",
    "tests/e2e/test_foreign_builds.py",
    "tests/faults/test_fixed_seeds.py",
    "tests/e2e/test_exactly_once.py",
    "tests/front_ends/test_make_patches.py",
    "tests/e2e/test_masters_and_logs.py",
    "tests/e2e/test_hosts.py",
    "tests/front_ends/test_make_projects.py",
    "tests/e2e/test_frozen.py",
    "tests/e2e/test_temporary_files.py",
    "tests/front_ends/test_languages.py",
    "tests/e2e/test_added_hosts.py",
    "tests/e2e/test_doctor_farm.py",
    "tests/e2e/test_failures.py",
    "tests/front_ends/test_make_suite.py",
    "tests/e2e/test_sandbox_inside.py",
    "tests/e2e/test_trace_judge.py",
    "tests/faults/test_soak.py",
    "tests/e2e/test_peers_suites.py",
    "tests/e2e/test_silent_workers.py",
    "tests/e2e/test_shown_commands.py",
    "tests/e2e/test_demo.py",
    "tests/dist/test_release_files.py",
    "tests/e2e/test_records.py",
    "tests/front_ends/test_ninja.py",
    "tests/front_ends/test_cmake.py",
)


class LoudEvents(logging.Handler):
    """The events that termite logs in this process as a WARNING or worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Remember the line by its event, which is its first word."""
        line = record.getMessage()
        self.lines[line.partition(" ")[0]] = line


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks, and let a parallel run keep the order of the files."""
    config.option.loadscopereorder = False  # of pytest-xdist, which would begin with the files of most tests
    config.addinivalue_line("markers", "logs(*events): termite logs exactly these events as warnings or errors")
    config.addinivalue_line("markers", "needs_root(why): only root can run the test, because of what it does")
    config.addinivalue_line("markers", "attack: `pytest -v` reports the test as HELD or BROKEN")


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Report an attack as HELD or BROKEN.

    Attacks are the tests of tests/hostile, and those with the mark `attack`.
    """
    is_attack = report.nodeid.startswith("tests/hostile/") or "attack" in getattr(report, "keywords", ())
    if is_attack and report.when == "call" and not report.skipped:
        return ("passed", ".", "HELD") if report.passed else ("failed", "F", "BROKEN")
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a test in which termite warns of something that the test did not ask for.

    A test asks with the mark `logs`, or checks the log itself with `caplog`.
    """
    loud = LoudEvents()
    logger = logging.getLogger("termite")
    logger.addHandler(loud)
    try:
        yield
    finally:
        logger.removeHandler(loud)
    if "caplog" in getattr(item, "fixturenames", ()) or item.nodeid.startswith(WHOLE_PROGRAMS):
        return
    asked = {event for mark in item.iter_markers("logs") for event in mark.args}
    if asked != loud.lines.keys():
        pytest.fail(f"termite should warn of {sorted(asked)}, and did of {sorted(loud.lines.values())}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, object, object]:
    """Make a report of a parallel run fit for its line, which takes UTF-8 only.

    Some tests log names that are not.
    """
    return _in_utf8((yield))


def _in_utf8(report: object) -> object:
    if isinstance(report, str):
        return report.encode("utf-8", "backslashreplace").decode()
    if isinstance(report, dict):
        return {key: _in_utf8(value) for key, value in report.items()}
    if isinstance(report, list | tuple):
        return type(report)(map(_in_utf8, report))
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests that need root in an ordinary user's run. Order the files of a parallel run.

    tools/test_as_root.sh runs them afterwards: it asks with a variable for these tests only.
    """
    if os.environ.get("TERMITE_TESTS") == "root":
        items[:] = [item for item in items if item.get_closest_marker("needs_root")]
    elif os.geteuid() != 0:
        for item in items:
            if mark := item.get_closest_marker("needs_root"):
                item.add_marker(pytest.mark.skip(reason=f"needs root: {mark.args[0]}"))
    if hasattr(config, "workerinput"):
        counts = Counter(_file_of(item) for item in items)
        items.sort(key=lambda item: turn(_file_of(item), counts))


def _file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def turn(file: str, counts: Mapping[str, int]) -> tuple[int, int]:
    """Return the sort key of a file: the long ones first, then those of most tests."""
    return (LONG_FILES.index(file), 0) if file in LONG_FILES else (len(LONG_FILES), -counts[file])
