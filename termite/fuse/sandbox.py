"""One job in its sandbox: starts `termite-sandbox run`, passes its output on, tells how it ended.

The mirror is a large process, so the sandbox is started by posix_spawn (which does not copy page tables) and awaited
through a pidfd. Output is read only as fast as `on_output` takes it: a full pipe then stops the job, as at home.
"""

import contextlib
import errno
import logging
import math
import os
import select
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from termite.engine.errors import Retryable
from termite.engine.model import Exit, Usage
from termite.engine.records import pack_records, parse_records
from termite.fuse.network import loopback_namespace
from termite.fuse.scratch import Scratch

OUTPUT_BYTES = 64 * 1024  # what a pipe holds
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


@dataclass(frozen=True, slots=True)
class _Child:
    """A started sandbox: its process, and our ends of its pipes. `output` pairs a tag byte with an fd."""

    pid: int
    pidfd: int
    status: int
    output: tuple[tuple[bytes, int], ...]


class Sandboxes:
    """Runs jobs with the program `binary`, each in a directory of its own below `scratch`."""

    def __init__(self, binary: Path, scratch: Path, tmpfs: bool) -> None:
        self._binary = binary
        self.scratch = Scratch(scratch)
        self._wants_tmpfs = tmpfs
        self._network = -1

    async def setup(self) -> None:
        """Must be called once before the first job, in the mount namespace in which jobs are to be started."""
        if self._wants_tmpfs:
            self.scratch.mount_tmpfs()
        self._network = loopback_namespace()

    async def run(self, spec: SandboxSpec, on_output: OnOutput) -> SandboxResult:
        """Run a command to its end. Raises Retryable where that could not be tried."""
        try:
            scratch = self.scratch.make(spec.job)
        except OSError as error:
            raise Retryable(f"no scratch directory: {error.strerror}") from error
        started_ns = time.time_ns()
        child = _start(self._binary, _config(spec, scratch, self._network), spec, self._network)
        try:
            timed_out = await _follow(child, spec, on_output)
            records = _read_records(child.status)
        finally:
            _close(child)
        result = _result(records, started_ns, timed_out, scratch / "upper")
        if result.exit != Exit(0) and self.scratch.is_full():
            raise Retryable("worker's scratch space is full")
        return result

    def discard(self, job: int) -> None:
        """Remove all that a job has written; also where `run` has failed."""
        self.scratch.discard(job)


def _config(spec: SandboxSpec, scratch: Path, network: int) -> bytes:
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
        ("network", b"%d" % spec.network),
        ("memory", b"%d" % spec.memory_bytes),
    ]
    if spec.stdin_offset >= 0:
        records += [("stdin", b"stdin/%d" % spec.job), ("stdin_offset", b"%d" % spec.stdin_offset)]
    if network >= 0 and not spec.network:
        records.append(("netns", b"%d" % network))
    if spec.stdin_closed:
        records.append(("stdin_closed", b"1"))
    if spec.hostname:
        records.append(("hostname", os.fsencode(spec.hostname)))
    records.extend(("arg", word) for word in spec.argv)
    records.extend(("env", entry) for entry in spec.env)
    return pack_records(records)


def _start(binary: Path, config: bytes, spec: SandboxSpec, network: int) -> _Child:
    ours: list[int] = []
    theirs: list[int] = []
    try:
        for _ in range(2 if spec.merge else 3):
            reader, writer = os.pipe()
            ours.append(reader)
            theirs.append(writer)
        status, out, err = theirs[0], theirs[1], theirs[-1]
        theirs.append(memory := os.memfd_create("sandbox"))
        os.write(memory, config)
        os.lseek(memory, 0, os.SEEK_SET)
        pid = os.posix_spawn(
            binary,
            [b"termite-sandbox", b"run", b"%d" % memory, b"%d" % status],
            {},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
                if spec.stdin_fd < 0
                else (os.POSIX_SPAWN_DUP2, spec.stdin_fd, 0),
                (os.POSIX_SPAWN_DUP2, out, 1),
                (os.POSIX_SPAWN_DUP2, err, 2),
                (os.POSIX_SPAWN_DUP2, memory, memory),  # onto itself: only takes close-on-exec away
                (os.POSIX_SPAWN_DUP2, status, status),
                *([(os.POSIX_SPAWN_DUP2, network, network)] if network >= 0 else []),
            ],
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores these two; a job must not
            setsid=True,  # a Ctrl-C for the worker is not for the job
        )
        ours.append(pidfd := os.pidfd_open(pid))
    except OSError as error:
        for fd in ours:
            os.close(fd)
        raise Retryable(f"a sandbox cannot be started: {error.strerror}") from error
    finally:
        for fd in theirs:
            os.close(fd)
    tags = (b"1",) if spec.merge else (b"1", b"2")
    return _Child(pid, pidfd, ours[0], tuple(zip(tags, ours[1:], strict=False)))


async def _follow(child: _Child, spec: SandboxSpec, on_output: OnOutput) -> bool:
    """Until the job is dead and all it has said is passed on; whether its time was up."""
    try:
        if spec.on_pid is not None:
            spec.on_pid(child.pid)
        with select.epoll() as events:
            events.register(child.pidfd, select.EPOLLIN)
            for _, fd in child.output:
                events.register(fd, select.EPOLLIN)
            unended = {child.pidfd: b"", **{fd: tag for tag, fd in child.output}}
            with trio.move_on_after(spec.timeout_s or math.inf) as limit:
                await _forward(events, unended, on_output)
            if limit.cancelled_caught:
                await _kill(child, spec)
                await _forward(events, unended, on_output)
    except BaseException:
        with trio.CancelScope(shield=True):
            await _kill(child, spec)
        raise
    return limit.cancelled_caught


async def _forward(events: select.epoll, unended: dict[int, bytes], on_output: OnOutput) -> None:
    """Until all of `unended` has ended: descriptors with the tag of what is read from them; none: it is not read.

    One task for all of them, because a turn of the scheduler costs as much as passing on a line.
    """
    while unended:
        await trio.lowlevel.wait_readable(events.fileno())
        for fd, _ in events.poll(0):
            chunk = os.read(fd, OUTPUT_BYTES) if unended[fd] else b""
            if chunk:
                await on_output(unended[fd] + chunk)
            else:
                events.unregister(fd)
                del unended[fd]


async def _kill(child: _Child, spec: SandboxSpec) -> None:
    if spec.on_kill is not None:
        spec.on_kill()
    # At SIGTERM it kills the job, and ends only when every process of it is gone. SIGKILL would not wait for that.
    for _ in range(KILLS):
        _send(child, signal.SIGTERM)
        with trio.move_on_after(KILL_S):
            await trio.lowlevel.wait_readable(child.pidfd)
            return
    log.warning("sandbox.does_not_die job=%d pid=%d", spec.job, child.pid)
    _send(child, signal.SIGKILL)


def _send(child: _Child, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(child.pidfd, number)


def _read_records(status: int) -> dict[str, str]:
    """What the sandbox, which has ended, said about the command."""
    os.set_blocking(status, False)
    text = b""
    try:
        while piece := os.read(status, 4096):
            text += piece
    except BlockingIOError:
        pass  # it was killed, and its init holds the pipe for another moment
    return {key: content.decode(errors="replace") for key, content in parse_records(text)}


def _result(records: dict[str, str], earliest_ns: int, timed_out: bool, upper: Path) -> SandboxResult:
    if "error" in records:
        raise Retryable(f"the sandbox could not be made: {records['error']}")
    exec_errno = int(records.get("exec", 0))
    started_ns = int(records.get("started_ns", earliest_ns))  # not known of what never started, nor of what was killed
    ended_ns = int(records.get("ended_ns", time.time_ns()))
    if timed_out:
        exit = Exit(0, signal.SIGKILL)
    elif exec_errno:
        exit = Exit(127 if exec_errno in NOT_FOUND else 126)
    elif "status" in records:
        exit = _exit_of(int(records["status"]))
    else:
        raise Retryable("the sandbox died before its command ended")
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


def _close(child: _Child) -> None:
    for fd in (child.pidfd, child.status, *(fd for _, fd in child.output)):
        os.close(fd)
    with contextlib.suppress(ChildProcessError):  # the mirror, as pid 1, may have reaped it already
        os.waitpid(child.pid, os.WNOHANG)
