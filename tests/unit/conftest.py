"""Fail a unit test that changes the disk, starts a process or uses the network.

Such a test belongs to tests/edge, because the unit tests run at each `make check`.
"""

import gc
import os
import sys
from collections.abc import Generator

import pytest

COSTLY = {
    *("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.utime"),
    *("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"),
    *("socket.bind", "socket.connect", "socket.getaddrinfo"),
}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Python and hypothesis keep caches, whatever a test does.
CACHES = ("__pycache__", ".hypothesis", "/dev/null")


class Costs:
    """The costly calls of the test that runs. Python calls `hear` for each event of PEP 578."""

    def __init__(self) -> None:
        self.is_running = False
        self.calls: list[str] = []

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        """Remember a costly call, unless it is for a cache."""
        if not self.is_running:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or not isinstance(flags, int) or not flags & WRITES:
                return
        elif event not in COSTLY:
            return
        call = f"{event}{arguments}"
        if not any(cache in call for cache in CACHES):
            self.calls.append(call)


_costs = Costs()
sys.addaudithook(_costs.hear)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail the test if it made a costly call."""
    if "tests/unit/" not in item.nodeid:
        yield
        return
    _costs.calls.clear()
    _costs.is_running = True
    try:
        yield
    finally:
        _costs.is_running = False
    if _costs.calls:
        pytest.fail(f"a test that does this belongs to tests/edge: {_costs.calls[:3]}", pytrace=False)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from visiting all modules and tests again and again."""
    gc.collect()
    gc.freeze()
