"""End what the masters of these tests have begun, but nobody watches to its end."""

from collections.abc import Iterator

import pytest

from termite.engine.launch.local_runs import LocalRuns, LocalSlots
from termite.engine.loop.fd_watcher import FdWatcher


@pytest.fixture(autouse=True)
def ended_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the descriptors of commands that have ended: hundreds of masters would keep them."""
    made = list[LocalRuns]()
    begin = LocalRuns.__init__

    def begin_noted(self: LocalRuns, slots: LocalSlots, fd_watcher: FdWatcher) -> None:
        begin(self, slots, fd_watcher)
        made.append(self)

    monkeypatch.setattr(LocalRuns, "__init__", begin_noted)
    yield
    for runs in made:
        runs.end_ended()
