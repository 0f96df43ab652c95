"""Accept the connections of launchers and `termite-ctl` (docs/develop/protocol.md, "Launcher").

One connection is one job. Wrong bytes end their own connection, and nothing else.
"""

import contextlib
import functools
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from termite.engine.errors import RemoteProtocolError, UserError, first_error
from termite.engine.host.descriptors import Descriptors, has_half_the_reserve, shortage_text
from termite.engine.launch import launcher_calls
from termite.engine.launch.connection import Launcher, LauncherGone
from termite.engine.launch.invocation import JobRequest, parse_invoke
from termite.engine.loop.fd_watcher import FdWatcher
from termite.engine.model import Exit
from termite.engine.status.control_requests import ControlAnswer, ControlRequest, parse_request
from termite.engine.wire.protocol import launcher_frames

ACCEPT_RETRY_S = 0.1  # descriptors or memory ran out; they come back when a job ends

log = logging.getLogger(__name__)

# A feed sends frames until it is cancelled. Its argument sends some, and may block.
Feed = Callable[[Callable[[bytes], Awaitable[None]]], Awaitable[None]]
ControlSession = Callable[[ControlRequest], Awaitable[ControlAnswer | Feed]]
Rest = Callable[[], Awaitable[None]]
RestOfJob = Callable[[], Awaitable[Exit | None]]


class Runner(Protocol):
    """A runner starts the job of each launcher."""

    def begin(self, launcher: Launcher, request: JobRequest) -> RestOfJob | None:
        """Begin a job for `launcher` without waiting, and return its remaining steps.

        Return None if the job is done and the launcher answered. The remaining steps return the
        command's exit, or None if the launcher executes the command itself.
        """


class LauncherListener:
    """The listener serves the connections of launchers, termite-ctl and the front ends.

    `runner` starts the jobs. `control` opens a session that answers the control requests of one
    connection. `fd_watcher` watches the connections while their jobs run. `build_socket` is for
    `Launcher`.
    """

    def __init__(
        self,
        runner: Runner,
        control: Callable[[], contextlib.AbstractContextManager[ControlSession]],
        fd_watcher: FdWatcher,
        build_socket: bytes = b"",
    ) -> None:
        self._runner = runner
        self._build_socket = build_socket
        self._control = control
        self._fd_watcher = fd_watcher
        self._cannot_accept = trio.Event()
        self._descriptors = Descriptors()
        self._is_crowded = False  # only the reserve of descriptors is left
        self._silent: set[Launcher] = set()  # connected, but have sent no frame yet

    async def listen(self, listener: socket.socket) -> None:
        """Accept connections until cancelled, then close those that have sent no frame yet.

        The listening socket is watched together with the launchers. A launcher's first frame mostly
        arrives a moment after its connection, often in the same turn of the scheduler.
        """
        try:
            while True:
                self._cannot_accept = trio.Event()
                with contextlib.suppress(OSError):  # no memory or too many epoll watches: retry as well
                    self._fd_watcher.watch(listener.fileno(), functools.partial(self._accept, listener))
                    await self._cannot_accept.wait()
                await trio.sleep(ACCEPT_RETRY_S)
        finally:
            self._fd_watcher.unwatch(listener.fileno())
            for launcher in tuple(self._silent):
                self._close(launcher)

    def _accept(self, listener: socket.socket) -> None:
        if self._is_crowded and not has_half_the_reserve():
            self._pause(listener, shortage_text())
            return
        try:
            connection, _ = launcher_calls.accept(listener)
        except BlockingIOError:
            return
        except (OSError, MemoryError) as error:
            self._pause(listener, repr(error))
            return
        try:
            self.serve_connection(connection)
        except Exception:  # around one connection: the listener goes on with the next one
            log.exception("launcher-failed")
            connection.close()

    def _pause(self, listener: socket.socket, reason: str) -> None:
        """Accept nobody for ACCEPT_RETRY_S. The kernel keeps the waiting launchers."""
        log.warning("launcher-not-accepted reason=%s", reason)
        self._fd_watcher.unwatch(listener.fileno())
        self._cannot_accept.set()

    def serve_connection(self, connection: socket.socket) -> None:
        """Serve a connection without blocking; start a task only if its job has to wait.

        In many builds most commands do nothing or run locally. A task for each of them would cost
        more than everything else that the master does for them.
        """
        connection.setblocking(False)
        self._is_crowded = not self._descriptors.has_room()
        self._read_first_frame(Launcher(connection, self._build_socket, is_one_too_many=self._is_crowded))

    def _read_first_frame(self, launcher: Launcher) -> None:
        """Start what the first frame asks for, or watch the connection until it has arrived."""
        rest: Rest | None = None
        with _ContainedErrors(launcher):
            frame = launcher.next_frame_nowait()
            if frame is None:  # mostly because connect(2), which has woken us, has not returned yet
                if launcher not in self._silent:
                    self._fd_watcher.watch(launcher.fd, functools.partial(self._read_first_frame, launcher))
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
        if kind == launcher_frames.INVOKE:
            rest = self._runner.begin(launcher, parse_invoke(payload))
            return functools.partial(self._serve_job, launcher, rest) if rest else None
        if kind == launcher_frames.CONTROL:
            return functools.partial(self._serve_control, launcher, payload)
        raise RemoteProtocolError(f"the first frame is {kind!r}")

    async def _serve_job(self, launcher: Launcher, rest: RestOfJob) -> None:
        with trio.CancelScope() as scope:
            self._fd_watcher.watch(launcher.fd, functools.partial(self._receive, launcher, scope))
            try:
                if launcher.has_unread_frames:
                    launcher.receive(scope)
                exit = await rest()
                if exit is not None:
                    await launcher.finish(exit)
            finally:
                self._fd_watcher.unwatch(launcher.fd)
        if isinstance(launcher.gone, RemoteProtocolError):
            raise launcher.gone
        if launcher.gone is not None and launcher.gone.signal:
            # The job has stopped and none of its results was published, so the launcher may now
            # die of its signal.
            await launcher.finish(Exit(0, launcher.gone.signal))

    def _receive(self, launcher: Launcher, scope: trio.CancelScope) -> None:
        if not launcher.receive(scope):
            self._fd_watcher.unwatch(launcher.fd)

    async def _serve_control(self, launcher: Launcher, payload: bytes) -> None:
        with self._control() as control:
            while True:
                try:
                    reply = await control(parse_request(launcher_frames.parse_object(payload)))
                except UserError as error:
                    reply = {"error": error.message, "hint": error.hint, "reason": error.reason.value}
                if not isinstance(reply, dict):
                    await _feed(launcher, reply)
                    return
                await launcher.send_frames(launcher_frames.frame(launcher_frames.ANSWER, json.dumps(reply).encode()))
                kind, payload = await launcher.next_frame()
                if kind != launcher_frames.CONTROL:
                    raise RemoteProtocolError(f"termite-ctl sent {kind!r}")


async def _feed(launcher: Launcher, feed: Feed) -> None:
    """Let `feed` send to a reader until it closes the connection."""
    with first_error():
        async with trio.open_nursery() as nursery:

            async def wait_for_end() -> None:
                kind, _ = await launcher.next_frame()
                raise RemoteProtocolError(f"a reader of the live stream sent {kind!r}")

            nursery.start_soon(wait_for_end)
            await feed(launcher.send_frames)


async def _serve(launcher: Launcher, rest: Rest) -> None:
    try:
        with _ContainedErrors(launcher):
            await rest()
    finally:
        launcher.close()


class _ContainedErrors:
    """A context that logs and suppresses the errors of one connection, so that all others go on.

    Every command passes through it, some twice. A class is faster than a generator function.
    """

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
        elif isinstance(error, Exception):  # around one connection: the master and its other jobs go on
            log.error("launcher-failed pid=%d", self._launcher.pid, exc_info=error)
        else:
            return False
        return True
