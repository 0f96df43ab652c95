"""What the tests expect of whoever starts them: `umask 077; make test &` is a way to do that, too."""

import os
import signal

import pytest

os.umask(0o022)
# A shell without job control lets what it runs in the background ignore the keyboard's signals, nohup the hang-up.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGQUIT, signal.SIGHUP):
    signal.signal(_number, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep what tools/test_as_root.sh asks for: what an ordinary user's run has skipped for want of root."""
    if os.environ.get("TERMITE_TESTS") == "root":
        items[:] = [item for item in items if any(map(_needs_root, item.iter_markers("skipif")))]


def _needs_root(mark: pytest.Mark) -> bool:
    return "needs root" in str(mark.kwargs.get("reason"))
