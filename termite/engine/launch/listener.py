"""The unix socket that launchers and `termite-ctl` connect to (docs/protocol.md, "Launcher").

One connection is one job. Whatever bytes come: that connection ends, and nothing else.
"""

import contextlib
import fcntl
import functools
import json
import logging
import os
import resource
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import trio

from termite.engine.errors import RemoteProtocolError, UserError
from termite.engine.launch.connection import Launcher, LauncherGone, Reply
from termite.engine.launch.invocation import Asked, parse_invoke
from termite.engine.launch.stdio import Job
from termite.engine.loop.fd_watcher import Readiness
from termite.engine.model import Exit
from termite.engine.wire.protocol import records

BACKLOG = 4096
ACCEPT_REST_S = 0.1
LOCK_PATIENCE_S = 5.0  # another master that is just starting holds the directory's lock for milliseconds

log = logging.getLogger(__name__)

Control = Callable[[Reply], Awaitable[Reply]]
Rest = Callable[[], Awaitable[None]]


class Runner(Protocol):
    """Who runs the jobs."""

    def begin(self, launcher: Launcher, asked: Asked) -> Job | None:
        """A job of its own for a launcher. None: all of it was done at once, and the launcher was told so."""

    async def run(self, job: Job) -> Exit | None:
        """The rest of it. None: the launcher runs the command, and was told so."""


class Launchers:
    """Serves connections: `runner` gets the jobs, `control` opens a session for what termite-ctl and the front ends
    say. `readiness` hears what launchers say while their jobs run."""

    def __init__(
        self,
        runner: Runner,
        control: Callable[[], contextlib.AbstractContextManager[Control]],
        readiness: Readiness,
    ) -> None:
        self._runner = runner
        self._control = control
        self._readiness = readiness
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
                    self._readiness.watch(listener.fileno(), functools.partial(self._accept, listener))
                    await self._cannot_accept.wait()
                await trio.sleep(ACCEPT_REST_S)
        finally:
            self._readiness.forget(listener.fileno())
            for launcher in tuple(self._silent):
                self._close(launcher)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # no descriptors, no memory: those who wait are served when there are
            log.warning("cannot-accept reason=%s", error.strerror)
            self._readiness.forget(listener.fileno())
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
                    self._readiness.watch(launcher.fd, functools.partial(self._listen_to, launcher))
                    self._silent.add(launcher)
                return
            rest = self._begin(launcher, *frame)
        if rest is None:
            self._close(launcher)
        else:
            self._forget(launcher)
            self._readiness.go_on(functools.partial(_serve, launcher, rest))

    def _close(self, launcher: Launcher) -> None:
        self._forget(launcher)
        launcher.close()

    def _forget(self, launcher: Launcher) -> None:
        self._readiness.forget(launcher.fd)
        self._silent.discard(launcher)

    def _begin(self, launcher: Launcher, kind: bytes, payload: bytes) -> Rest | None:
        if kind == records.INVOKE:
            job = self._runner.begin(launcher, parse_invoke(payload))
            return functools.partial(self._serve_job, launcher, job) if job else None
        if kind == records.CONTROL:
            return functools.partial(self._serve_control, launcher, payload)
        raise RemoteProtocolError(f"began with {kind!r}")

    async def _serve_job(self, launcher: Launcher, job: Job) -> None:
        with trio.CancelScope() as scope:
            self._readiness.watch(launcher.fd, functools.partial(self._hear, launcher, scope))
            try:
                if launcher.has_said_more:
                    launcher.hear(scope)
                exit = await self._runner.run(job)
                if exit is not None:
                    await launcher.finish(exit)
            finally:
                self._readiness.forget(launcher.fd)
        if isinstance(launcher.gone, RemoteProtocolError):
            raise launcher.gone
        if launcher.gone is not None and launcher.gone.signal:
            # The job has stopped and nothing of it was brought home: now the launcher may die of its signal.
            await launcher.finish(Exit(0, launcher.gone.signal))

    def _hear(self, launcher: Launcher, scope: trio.CancelScope) -> None:
        if not launcher.hear(scope):
            self._readiness.forget(launcher.fd)

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


@contextlib.contextmanager
def bound_socket(path: Path) -> Iterator[socket.socket]:
    """The listening socket at `path`, mode 0700, gone afterwards. UserError where a master listens already."""
    raise_file_limit()
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"cannot listen at {path}: {error.strerror}", hint="see -socket") from error
    try:
        with _locked(directory):
            # By way of the descriptor: the path of a deep tree does not fit into an address.
            address = f"/proc/self/fd/{directory}/{path.name}"
            if _is_answered(address):
                raise UserError(f"a master runs here already: {path}", hint="termite-ctl status")
            listening = _listening_socket(address)
            ours = os.stat(path.name, dir_fd=directory).st_ino
        try:
            yield listening
        finally:
            listening.close()
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path.name, dir_fd=directory).st_ino == ours:
                    os.unlink(path.name, dir_fd=directory)
    finally:
        os.close(directory)


def raise_file_limit() -> None:
    """Thousands of launchers at once are thousands of descriptors; the usual limit is 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _listening_socket(address: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    temporary = f"{address}.{os.getpid()}"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        listening.bind(temporary)
        os.chmod(temporary, 0o700)
        listening.listen(BACKLOG)
        listening.setblocking(False)
        # Its name appears when it answers, and replaces one that a killed master left.
        os.rename(temporary, address)
    except OSError as error:
        listening.close()
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise UserError(f"cannot listen at {os.path.realpath(address)}: {error.strerror}") from error
    return listening


def _is_answered(address: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        error = probe.connect_ex(address)
    # EAGAIN: its backlog is full, so somebody is there.
    return error in (0, 11)


@contextlib.contextmanager
def _locked(directory: int) -> Iterator[None]:
    """Two masters that start at once must not take the socket from each other."""
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise UserError("the directory is locked by another program", hint="is a master starting?") from None
            time.sleep(0.02)
        except OSError:
            break  # a file system without locks: the race is narrow
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(directory, fcntl.LOCK_UN)


def _parse_request(payload: bytes) -> Reply:
    try:
        request = json.loads(payload)
    except ValueError as error:
        raise RemoteProtocolError(f"a control request that is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise RemoteProtocolError("a control request that is no object")
    return request
