"""One job in its sandbox: gives it to one that is ready, passes its output on, tells how it ended.

Output is read only as fast as `on_output` takes it: a full pipe then stops the job, as at home.
"""

import contextlib
import errno
import logging
import math
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from termite.engine.errors import NotAtRest, Reason, Retryable
from termite.engine.model import Exit, Usage
from termite.engine.wire.protocol.records import pack_all, pack_records, parse_records
from termite.fuse.sandbox.oom_watch import OomWatch
from termite.fuse.sandbox.scratch import Scratch
from termite.fuse.sandbox.spawner import Spawner, Waiting

OUTPUT_BYTES = 64 * 1024  # what a pipe holds
ORDER_BYTES = 64 * 1024  # what the sandbox reads as one message; more goes through a file
REPORT_BYTES = 16 * 1024  # its longest text is a path with an error
READY = 4  # sandboxes and kits that wait: each costs two hundred KB, and the next is there within a millisecond
KILLS, KILL_S = 10, 1.0  # a killed sandbox that is still there after these is the kernel's problem, and the log says so

# What execvp's callers (a shell, make) turn into "not found"; any other failure to execute is 126.
NOT_FOUND = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})

OnOutput = Callable[[bytes], Awaitable[None]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What to run, and in which view. `lower` is overlay's lowerdir, relative to `mount`; `env` has NAME=value.

    Standard input is `stdin_fd`, or the mirror's file `stdin/JOB` at `stdin_offset`, or closed; else /dev/null.
    `on_pid` is told the pid of the sandbox's first process, as soon as there is one. `on_kill` is called just before
    the job is killed (time-out, cancellation): a process that waits for the mirror dies only when it is answered.
    """

    job: int
    mount: Path
    lower: str
    uid: int
    gid: int
    argv: tuple[bytes, ...]
    exe: bytes
    search: bool
    env: tuple[bytes, ...]
    cwd: bytes
    umask: int
    stdin_fd: int = -1
    stdin_offset: int = -1
    stdin_closed: bool = False
    merge: bool = False
    network: bool = False
    timeout_s: float = 0.0
    memory_bytes: int = 0
    hostname: str = ""
    on_pid: Callable[[int], None] | None = None
    on_kill: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class SandboxResult:
    """How the command ended. `upper` holds what it wrote, until `Sandboxes.discard`."""

    exit: Exit
    exec_errno: int
    usage: Usage
    started_ns: int
    ended_ns: int
    timed_out: bool
    upper: Path
    stdin_offset: int = -1


@dataclass(slots=True)
class _Kit:
    """What a job needs beside a sandbox: directories, two pipes, and an epoll that watches what comes from them."""

    scratch: Path
    readers: tuple[int, int]
    writers: tuple[int, ...]
    events: select.epoll

    def close(self) -> None:
        """Of its descriptors."""
        self.events.close()
        for fd in (*self.readers, *self.writers):
            os.close(fd)
        self.writers = ()

    def close_writers(self) -> None:
        """The sandbox has them."""
        for fd in self.writers:
            os.close(fd)
        self.writers = ()


@dataclass(frozen=True, slots=True)
class _Running:
    """A sandbox with its job. `output` has the tag byte of each pipe by our descriptor of it."""

    sandbox: Waiting
    kit: _Kit
    output: dict[int, bytes]

    def close(self) -> None:
        self.sandbox.close()
        self.kit.close()


class Sandboxes:
    """Runs jobs with the program `binary`, each in a directory of its own below `scratch`."""

    def __init__(self, binary: Path, scratch: Path, tmpfs: bool) -> None:
        self.scratch = Scratch(binary, scratch)
        self._wants_tmpfs = tmpfs
        self._oom = OomWatch()
        self._ready = 1
        self._kits: deque[_Kit] = deque()
        self._of_jobs: dict[int, Path] = {}
        self._running = 0
        self._is_busy = trio.Event()
        self._spawners = {network: Spawner(binary, scratch, network=network) for network in (False, True)}

    def setup(self) -> None:
        """Must be called once before the first job, in the mount namespace in which jobs are to be started."""
        if self._wants_tmpfs:
            self.scratch.mount_tmpfs()

    async def check(self) -> None:
        """Everything that jobs are to see is mounted. Retryable where none could be run."""
        await self._spawners[False].check()

    def keep_ready(self, slots: int) -> None:
        """So many jobs may run at once."""
        self._ready = min(slots, READY)
        self.prepare()

    def prepare(self) -> None:
        """What the next jobs need, so that they need not wait for it. To be called after each job, when nobody waits.
        What fails here, `run` will find out."""
        self._spawners[False].refill(self._ready)
        with contextlib.suppress(OSError):
            while len(self._kits) < self._ready:
                self._kits.append(self._make_kit())

    def close(self) -> None:
        """No job runs, and none will."""
        self.scratch.close()
        self._oom.close()
        while self._kits:
            self._kits.popleft().close()
        for spawner in self._spawners.values():
            spawner.close()

    async def run(self, spec: SandboxSpec, on_output: OnOutput) -> SandboxResult:
        """Run a command to its end. Raises Retryable where that could not be tried."""
        try:
            kit = self._kits.popleft() if self._kits else self._make_kit()
        except OSError as error:
            raise Retryable(Reason.SANDBOX_FAILED, f"no scratch directory: {error.strerror}") from error
        self._of_jobs[spec.job] = kit.scratch
        began_s, started_ns = time.monotonic(), time.time_ns()
        try:
            sandbox = await self._spawners[spec.network].take()
        except BaseException:
            kit.close()
            raise
        running = _start(sandbox, kit, spec)
        self._running += 1
        self._is_busy.set()
        try:
            records, timed_out = await _follow(running, spec, on_output)
        finally:
            running.close()
            self._running -= 1
        result = _result(records, started_ns, timed_out, kit.scratch / "upper")
        self._raise_shortage(has_failed=result.exit != Exit(0), began_s=began_s)
        return result

    async def keep_looking(self) -> None:
        """See how much space there is while jobs run. A job that finds none may have made room again when it ends."""
        while True:
            await self._is_busy.wait()
            while self._running:
                self._oom.look(time.monotonic())
                pause_s = self.scratch.look(time.monotonic())
                await trio.sleep(pause_s)
            self._is_busy = trio.Event()

    def _raise_shortage(self, *, has_failed: bool, began_s: float) -> None:
        """What this machine was short of is no result: Retryable."""
        if has_failed:
            self._oom.look(time.monotonic())
            self.scratch.look(time.monotonic())
        if self.scratch.is_full() or (has_failed and self.scratch.was_low_since(began_s)):
            raise Retryable(Reason.SCRATCH_FULL)
        if has_failed and self._oom.has_killed_since(began_s):
            raise Retryable(Reason.MEMORY_FULL, "the kernel killed a process")

    def discard(self, job: int) -> None:
        """What a job has written goes at the next clearing up; also where `run` has failed."""
        scratch = self._of_jobs.pop(job, None)
        if scratch is not None:
            self.scratch.remove_later(scratch)

    def _make_kit(self) -> _Kit:
        fds: list[int] = []
        try:
            for _ in range(2):
                fds += os.pipe()
            events = select.epoll()
            for fd in (fds[0], fds[2]):
                os.set_blocking(fd, False)
                events.register(fd, select.EPOLLIN)
            return _Kit(self.scratch.make(), (fds[0], fds[2]), (fds[1], fds[3]), events)
        except OSError:
            for fd in fds:
                os.close(fd)
            raise


def _config(spec: SandboxSpec, scratch: Path) -> bytes:
    records = [
        ("mount", os.fsencode(spec.mount)),
        ("lower", os.fsencode(spec.lower)),
        ("scratch", os.fsencode(scratch)),
        ("uid", b"%d" % spec.uid),
        ("gid", b"%d" % spec.gid),
        ("root", b"%d" % (spec.uid == 0)),
        ("cwd", spec.cwd),
        ("umask", b"%o" % spec.umask),
        ("exe", spec.exe),
        ("search", b"%d" % spec.search),
        ("memory", b"%d" % spec.memory_bytes),
    ]
    if spec.stdin_offset >= 0:
        records += [("stdin", b"stdin/%d" % spec.job), ("stdin_offset", b"%d" % spec.stdin_offset)]
    if spec.stdin_closed:
        records.append(("stdin_closed", b"1"))
    if spec.hostname:
        records.append(("hostname", os.fsencode(spec.hostname)))
    return pack_records(records) + pack_all("arg", spec.argv) + pack_all("env", spec.env)


def _start(sandbox: Waiting, kit: _Kit, spec: SandboxSpec) -> _Running:
    fds = [kit.writers[0], kit.writers[0 if spec.merge else 1]]
    large = -1
    try:
        order = _config(spec, kit.scratch)
        kit.events.register(sandbox.channel, select.EPOLLIN)
        if len(order) > ORDER_BYTES:
            large = os.memfd_create("job")
            os.write(large, order)
            os.lseek(large, 0, os.SEEK_SET)
            order = b"large=1\0"
            fds.append(large)
        if spec.stdin_fd >= 0:
            fds.append(spec.stdin_fd)
        socket.send_fds(sandbox.channel, [order], fds)
    except BaseException as error:
        kit.close()
        sandbox.close()
        if isinstance(error, OSError):
            raise Retryable(Reason.SANDBOX_FAILED, error.strerror or "") from error
        raise
    finally:
        if large >= 0:
            os.close(large)
    if spec.merge:
        kit.events.unregister(kit.readers[1])  # it ends now
    kit.close_writers()
    return _Running(sandbox, kit, dict(zip(kit.readers, (b"1",) if spec.merge else (b"1", b"2"), strict=False)))


async def _follow(running: _Running, spec: SandboxSpec, on_output: OnOutput) -> tuple[dict[str, str], bool]:
    """Until the job is dead and all it has said is passed on: what its sandbox says; whether its time was up."""
    try:
        if spec.on_pid is not None:
            spec.on_pid(running.sandbox.pid)
        with trio.move_on_after(spec.timeout_s or math.inf) as limit:
            await _forward(running, on_output)
        if limit.cancelled_caught:
            await _kill(running, spec)
            await _forward(running, on_output)
        said = _read_report(running)
        if not said:  # its init was killed, and so is all else, but that may take another moment
            await trio.lowlevel.wait_readable(running.sandbox.pidfd)
        for fd, tag in running.output.items():
            while chunk := _read_at_once(fd):
                await on_output(tag + chunk)
    except BaseException:
        with trio.CancelScope(shield=True):
            await _kill(running, spec)
        raise
    return said, limit.cancelled_caught


async def _forward(running: _Running, on_output: OnOutput) -> None:
    """What the job says, until its sandbox has something to say. Then nobody writes to the pipes any more.

    One task for all of them, because a turn of the scheduler costs as much as passing on a line.
    """
    channel, events, output = running.sandbox.channel.fileno(), running.kit.events, running.output
    while True:
        await trio.lowlevel.wait_readable(events.fileno())
        ready = [fd for fd, _ in events.poll(0)]
        if channel in ready:
            return
        for fd in ready:
            chunk = _read_at_once(fd)
            if chunk:
                await on_output(output[fd] + chunk)
            elif chunk is not None:  # its init was killed, and this is the first to end
                events.unregister(fd)


def _read_at_once(fd: int) -> bytes | None:
    """What is there; nothing at the end; None where there is nothing now: a job may read what it has written itself."""
    try:
        return os.read(fd, OUTPUT_BYTES)
    except BlockingIOError:
        return None


async def _kill(running: _Running, spec: SandboxSpec) -> None:
    if spec.on_kill is not None:
        spec.on_kill()
    # At SIGTERM its init kills the job, and says where it has left its input. It ends when all of the job is gone.
    for _ in range(KILLS):
        _send(running, signal.SIGTERM)
        with trio.move_on_after(KILL_S):
            await trio.lowlevel.wait_readable(running.sandbox.pidfd)
            return
    log.warning("sandbox-not-killed job=%d pid=%d", spec.job, running.sandbox.pid)
    _send(running, signal.SIGKILL)


def _send(running: _Running, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(running.sandbox.pidfd, number)


def _read_report(running: _Running) -> dict[str, str]:
    """What the sandbox said about the command; nothing if it was killed."""
    try:
        said = running.sandbox.channel.recv(REPORT_BYTES)
    except OSError:  # it was killed with an order in its queue, or is still being killed
        return {}
    return {key: content.decode(errors="replace") for key, content in parse_records(said)}


def _result(records: dict[str, str], earliest_ns: int, timed_out: bool, upper: Path) -> SandboxResult:
    if "error" in records:
        raise Retryable(Reason.SANDBOX_FAILED, records["error"])
    if "busy" in records:
        raise NotAtRest("another job has a file of this one open for writing")
    exec_errno = int(records.get("exec", 0))
    started_ns = int(records.get("started_ns", earliest_ns))  # not known of what never started, nor of what was killed
    ended_ns = int(records.get("ended_ns", time.time_ns()))
    if timed_out and records:  # without a word of its init, nobody has seen that all of the job is dead
        exit = Exit(0, signal.SIGKILL)
    elif exec_errno:
        exit = Exit(127 if exec_errno in NOT_FOUND else 126)
    elif "status" in records:
        exit = _exit_of(int(records["status"]))
    else:
        raise Retryable(Reason.SANDBOX_FAILED, "the sandbox died before its command ended")
    usage = Usage(
        wall_s=(ended_ns - started_ns) / 1e9,
        user_s=int(records.get("user_us", 0)) / 1e6,
        system_s=int(records.get("system_us", 0)) / 1e6,
        peak_memory_bytes=int(records.get("maxrss_kb", 0)) * 1024,
    )
    stdin_offset = int(records.get("stdin_offset", -1))
    return SandboxResult(exit, exec_errno, usage, started_ns, ended_ns, timed_out, upper, stdin_offset)


def _exit_of(status: int) -> Exit:
    return Exit(0, os.WTERMSIG(status)) if os.WIFSIGNALED(status) else Exit(os.WEXITSTATUS(status))
