"""A master that has nothing but a live stream, for tests of everything that reads one."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import trio

from termite.engine.errors import UserError
from termite.engine.history.logic.live_events import Event, Snapshot
from termite.engine.history.logic.live_state import LiveState
from termite.engine.history.watchers import Watchers
from termite.engine.launch.connection import Launcher
from termite.engine.launch.invocation import JobRequest
from termite.engine.launch.launcher_socket import bound_socket
from termite.engine.launch.listener import ControlSession, Feed, LauncherListener, RestOfJob
from termite.engine.loop.fd_watcher import FdWatcher
from termite.engine.status.control_requests import AskWatch, ControlAnswer, ControlRequest


class NoJobs:
    """A runner that gets no job."""

    def begin(self, launcher: Launcher, request: JobRequest) -> RestOfJob | None:
        """Fail."""
        raise AssertionError("no launcher comes")


class FakeMaster:
    """A master that has nothing but a live stream. Its state is that of the events it has sent."""

    def __init__(self) -> None:
        self.state = LiveState()
        self.watchers = Watchers(self.snapshot)

    def snapshot(self) -> Snapshot:
        """Return what the events up to now make."""
        state = self.state
        return Snapshot(
            at_s=state.at_s,
            master=state.master,
            jobs=tuple(state.jobs.values()),
            builds=tuple(
                msgspec.structs.replace(build, jobs=build.jobs + state.home_counts.get(build.id, 0))
                for build in state.builds.values()
            ),
            workers=tuple(state.workers.values()),
            waits_for=state.waits_for,
        )

    def emit(self, event: Event) -> None:
        """Change the state by an event, and send it."""
        self.state.apply(event)
        self.watchers.emit(event)

    @contextlib.contextmanager
    def control(self) -> Iterator[ControlSession]:
        """Open a session as a master does. The only command is `watch`."""

        async def answer(request: ControlRequest) -> ControlAnswer | Feed:
            if not isinstance(request, AskWatch):
                raise UserError("unknown command", hint="another version")
            return self.watchers.serve

        yield answer


@contextlib.asynccontextmanager
async def serving(path: Path) -> AsyncIterator[FakeMaster]:
    """Listen at `path`, and yield the master: `emit` sends an event to its readers."""
    master, fd_watcher = FakeMaster(), FdWatcher()
    with bound_socket(path) as listening:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fd_watcher.run)
            nursery.start_soon(LauncherListener(NoJobs(), master.control, fd_watcher).listen, listening)
            yield master
            nursery.cancel_scope.cancel()
