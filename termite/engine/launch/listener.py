"""The unix socket that launchers and `termite-ctl` connect to (docs/develop/protocol.md, "Launcher").

One connection is one job. Whatever bytes come: that connection ends, and nothing else.
"""

import contextlib
import functools
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from termite.engine.errors import RemoteProtocolError, UserError
from termite.engine.launch.connection import Launcher, LauncherGone, Reply
from termite.engine.launch.invocation import Asked, parse_invoke
from termite.engine.loop.fd_watcher import FdWatcher
from termite.engine.model import Exit
from termite.engine.wire.protocol import records

ACCEPT_REST_S = 0.1

log = logging.getLogger(__name__)

ControlSession = Callable[[Reply], Awaitable[Reply]]
Rest = Callable[[], Awaitable[None]]
RestOfJob = Callable[[], Awaitable[Exit | None]]


class Runner(Protocol):
    """A runner starts the job of each launcher."""

    def begin(self, launcher: Launcher, asked: Asked) -> RestOfJob | None:
        """Begin a job for `launcher` and return its remaining steps. None: the job is done and the launcher answered.

        The remaining steps return the command's exit, or None if the launcher runs the command itself.
        """


class LauncherListener:
    """Serves connections: `runner` gets the jobs, `control` opens a session for what termite-ctl and the front ends
    say. `fd_watcher` hears what launchers say while their jobs run."""

    def __init__(
        self,
        runner: Runner,
        control: Callable[[], contextlib.AbstractContextManager[ControlSession]],
        fd_watcher: FdWatcher,
    ) -> None:
        self._runner = runner
        self._control = control
        self._fd_watcher = fd_watcher
        self._cannot_accept = trio.Event()
        self._silent: set[Launcher] = set()  # connected, and have not said what they want

    async def listen(self, listener: socket.socket) -> None:
        """Until cancelled.

        The listener is watched together with the launchers: one that connects is heard in the same turn of the
        scheduler, though it mostly speaks a moment later.
        """
        try:
            while True:
                self._cannot_accept = trio.Event()
                with contextlib.suppress(OSError):  # no memory, too many epoll watches: the same
                    self._fd_watcher.watch(listener.fileno(), functools.partial(self._accept, listener))
                    await self._cannot_accept.wait()
                await trio.sleep(ACCEPT_REST_S)
        finally:
            self._fd_watcher.unwatch(listener.fileno())
            for launcher in tuple(self._silent):
                self._close(launcher)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # no descriptors, no memory: those who wait are served when there are
            log.warning("launcher-not-accepted reason=%s", error.strerror)
            self._fd_watcher.unwatch(listener.fileno())
            self._cannot_accept.set()
            return
        try:
            self.meet(connection)
        except Exception:  # one launcher: the listener is called again
            log.exception("launcher-failed")
            connection.close()

    def meet(self, connection: socket.socket) -> None:
        """Serve a connection: at once as far as nothing has to wait.

        Most commands of many a build are nothing, or run here: a task for each would take longer than all else that the
        master does for it.
        """
        connection.setblocking(False)
        self._listen_to(Launcher(connection))

    def _listen_to(self, launcher: Launcher) -> None:
        """For its first frame, as often as it says something."""
        rest: Rest | None = None
        with _Surviving(launcher):
            frame = launcher.frame_at_once()
            if frame is None:  # mostly because it is still in connect(2), which has woken us
                if launcher not in self._silent:
                    self._fd_watcher.watch(launcher.fd, functools.partial(self._listen_to, launcher))
                    self._silent.add(launcher)
                return
            rest = self._begin(launcher, *frame)
        if rest is None:
            self._close(launcher)
        else:
            self._forget(launcher)
            self._fd_watcher.run_next(functools.partial(_serve, launcher, rest))

    def _close(self, launcher: Launcher) -> None:
        self._forget(launcher)
        launcher.close()

    def _forget(self, launcher: Launcher) -> None:
        self._fd_watcher.unwatch(launcher.fd)
        self._silent.discard(launcher)

    def _begin(self, launcher: Launcher, kind: bytes, payload: bytes) -> Rest | None:
        if kind == records.INVOKE:
            rest = self._runner.begin(launcher, parse_invoke(payload))
            return functools.partial(self._serve_job, launcher, rest) if rest else None
        if kind == records.CONTROL:
            return functools.partial(self._serve_control, launcher, payload)
        raise RemoteProtocolError(f"began with {kind!r}")

    async def _serve_job(self, launcher: Launcher, rest: RestOfJob) -> None:
        with trio.CancelScope() as scope:
            self._fd_watcher.watch(launcher.fd, functools.partial(self._hear, launcher, scope))
            try:
                if launcher.has_said_more:
                    launcher.hear(scope)
                exit = await rest()
                if exit is not None:
                    await launcher.finish(exit)
            finally:
                self._fd_watcher.unwatch(launcher.fd)
        if isinstance(launcher.gone, RemoteProtocolError):
            raise launcher.gone
        if launcher.gone is not None and launcher.gone.signal:
            # The job has stopped and nothing of it was brought home: now the launcher may die of its signal.
            await launcher.finish(Exit(0, launcher.gone.signal))

    def _hear(self, launcher: Launcher, scope: trio.CancelScope) -> None:
        if not launcher.hear(scope):
            self._fd_watcher.unwatch(launcher.fd)

    async def _serve_control(self, launcher: Launcher, payload: bytes) -> None:
        with self._control() as control:
            while True:
                try:
                    reply = await control(_parse_request(payload))
                except UserError as error:
                    reply = {"error": error.message, "hint": error.hint}
                await launcher.answer(reply)
                kind, payload = await launcher.next_frame()
                if kind != records.CONTROL:
                    raise RemoteProtocolError(f"termite-ctl said {kind!r}")


async def _serve(launcher: Launcher, rest: Rest) -> None:
    try:
        with _Surviving(launcher):
            await rest()
    finally:
        launcher.close()


class _Surviving:
    """Whatever one launcher says: that connection ends, and nothing else. Every command comes here, some twice."""

    __slots__ = ("_launcher",)

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if error is None or isinstance(error, LauncherGone):
            return True
        if isinstance(error, RemoteProtocolError):
            log.warning("launcher-dropped pid=%d reason=%s", self._launcher.pid, error)
        elif isinstance(error, Exception):  # one launcher: the others and the master live on
            log.error("launcher-failed pid=%d", self._launcher.pid, exc_info=error)
        else:
            return False
        return True


def _parse_request(payload: bytes) -> Reply:
    try:
        request = json.loads(payload)
    except ValueError as error:
        raise RemoteProtocolError(f"a control request that is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise RemoteProtocolError("a control request that is no object")
    return request
