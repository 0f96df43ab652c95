"""A short-lived program's connection to a master: find its socket, send commands, start a master.

All calls block, and there are few imports, because every build waits for this module.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from termite.cli.places import STATE, home, own_directory, tree_name, working_directory
from termite.engine.errors import Reason, RemoteProtocolError, UserError
from termite.engine.host.ownership import is_of_stranger
from termite.engine.launch.vantage import own_ids, own_vantage
from termite.engine.loop.readiness import wait_until_readable
from termite.engine.paths import MASTER_SOCKET
from termite.engine.socket_peers import peer_ids
from termite.engine.status.control_requests import ControlAnswer, ControlRequest
from termite.engine.wire.protocol import launcher_frames

READ_BYTES = 64 * 1024
START_S = 30.0  # a master is ready in half a second; a loaded machine takes longer
END_S = 30.0
ANSWER_S = 120.0  # termite-ctl refresh checks every file that was served, which takes seconds
START_ONE = "start one with `termite-ctl start`"
BUILD_ANSWER_S = 30.0  # a build does not wait longer for a master that does not answer
IDLE_S = "600"  # after so long an idle master that we started ends; until then its mirror stays warm
_VCS = (".git", ".hg", ".svn")
# Variables that belong to the build that happens to start a master, and not to the master.
_OF_THE_BUILD = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKE_TERMOUT", "MAKE_TERMERR", "LD_PRELOAD")
# The flags of a new master that variables set.
_FLAGS = {
    "TERMITE_SHORT": "short",
    "TERMITE_LOG_FORMAT": "log-format",
    "TERMITE_TMP": "tmp",
    "TERMITE_TRACE": "trace",
    "TERMITE_CACHE": "cache",
    "TERMITE_SHARED_CACHE": "shared-cache",
    "TERMITE_SHARED_CACHE_MODE": "shared-cache-mode",
    "TERMITE_JOB_OUTPUT": "job-output",
}

TYPE_CHECKING = False  # not typing's: that import takes too long
if TYPE_CHECKING:
    pass


class StartReport:
    """The report of a master on how its start has ended, for the process that has started it.

    The master serves if `error` is "". Otherwise all three are those of a UserError.
    """

    __slots__ = ("error", "hint", "reason")

    def __init__(self, error: str = "", hint: str = "", reason: str = Reason.NEEDS_A_PERSON.value) -> None:
        self.error, self.hint, self.reason = error, hint, reason

    def pack(self) -> bytes:
        """Return the report as it goes through the pipe `--ready-fd`: one JSON object."""
        return json.dumps({"error": self.error, "hint": self.hint, "reason": self.reason}).encode()


def parse_start_report(packed: bytes) -> StartReport:
    """Return a report. One that was cut off, or is "", is that of a master that has ended."""
    try:
        found = launcher_frames.parse_object(packed)
    except RemoteProtocolError:
        return StartReport("the master ended while it was starting")
    return StartReport(str(found.get("error", "")), str(found.get("hint", "")), str(found.get("reason", "")))


class NoMaster(UserError):
    """The error of a program that finds no master, or whose master went away."""


class Client:
    """A control connection to a master. A build ends when the connection that began it is closed.

    `tree` is the path of the tree after which files of the user are named.
    Raise NoMaster if no master of this user listens at `path`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree = path.parent
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._frames = launcher_frames.FrameBuffer()
        directory = -1
        try:
            # The kernel lets a process wait without end for a master that does not accept.
            patience = struct.pack("ll", int(BUILD_ANSWER_S), 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
            # An address holds 107 bytes, and the path of a tree may be longer: use a descriptor.
            directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._socket.connect(f"/proc/self/fd/{directory}/{path.name}")
        except OSError as error:
            self._socket.close()
            raise NoMaster(f"no master listens at {path}: {error.strerror}", hint=START_ONE) from error
        finally:
            if directory >= 0:
                os.close(directory)
        # Root can connect to any user's master, but must not run the commands that it returns.
        if self._peer()[1] != own_ids()[0]:
            self._socket.close()
            raise NoMaster(f"the master that listens at {path} belongs to another user", hint=START_ONE)

    def ask(self, request: ControlRequest, patience_s: float = ANSWER_S) -> ControlAnswer:
        """Send one request and return the answer. Block up to `patience_s`.

        The request gets the vantage of this process, and its directory unless it has one.

        Raise UserError if the command failed, and NoMaster if the master ended or does not answer.
        """
        request.cwd, request.vantage = request.cwd or _current_directory(), own_vantage()
        self._socket.settimeout(patience_s)  # not before: connecting must wait while the backlog is full
        try:
            self._socket.sendall(launcher_frames.frame(launcher_frames.CONTROL, request.pack()), socket.MSG_NOSIGNAL)
            reply = self._receive()
        except TimeoutError as error:
            pid, _ = self._peer()
            raise NoMaster(f"the master (process {pid}) does not answer", hint=f"kill {pid}") from error
        except OSError as error:
            raise NoMaster(f"the master is gone: {error.strerror}") from error
        if "error" in reply:
            raise UserError(
                str(reply["error"]), hint=str(reply.get("hint", "")), reason=_reason_named(reply.get("reason"))
            )
        return reply

    def wait_for_its_end(self) -> None:
        """Wait for the end of the master's process. Raise UserError if it still runs after 30 s."""
        pid, _ = self._peer()
        try:
            process = os.pidfd_open(pid)
        except OSError:  # it has ended
            return
        if not wait_until_readable([process], END_S):
            raise UserError(f"the master (process {pid}) does not end", hint=f"kill {pid}")

    def hand_over(self) -> socket.socket:
        """Return the connection for another conversation than commands and answers."""
        self._socket.settimeout(None)
        return self._socket

    @property
    def pid(self) -> int:
        """The process of the master."""
        return self._peer()[0]

    def _peer(self) -> tuple[int, int]:
        """Return the process id and the user id of the master."""
        return peer_ids(self._socket.getsockopt)[:2]

    def _receive(self) -> ControlAnswer:
        while True:
            received = self._socket.recv(READ_BYTES)
            if not received:
                raise NoMaster("the master is gone")
            for kind, payload in self._frames.feed(received):
                if kind != launcher_frames.ANSWER:
                    raise RemoteProtocolError(f"a master answered {kind!r}")
                return launcher_frames.parse_object(payload)


def find_socket(directory: Path, env: Mapping[str, str] = os.environ) -> Path | None:
    """Return the path of the socket of the master of `directory`, as the launcher finds it.

    Return None if there is no socket, or if $TERMITE_SOCKET is empty.
    """
    named = env.get("TERMITE_SOCKET")
    if named is not None:
        return directory / named if named else None
    for place in (directory, *directory.parents):
        path = place / MASTER_SOCKET
        if _is_our_socket(path):
            return path
    of_build = env.get("TERMITE_BUILD_SOCKET")
    return Path(of_build) if of_build and _is_our_socket(Path(of_build)) else None


def _is_our_socket(path: Path) -> bool:
    """Return whether a path is a socket of this user.

    A symlink of another user could name the master of another tree.
    """
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISSOCK(status.st_mode) and status.st_uid == os.geteuid()


def connect(directory: Path) -> Client:
    """Connect to the master of `directory`. Raise NoMaster if there is none."""
    path = find_socket(directory)
    if path is None:
        raise NoMaster(f"no master runs in {directory} or above it", hint=START_ONE)
    return Client(path)


def connect_here() -> Client:
    """Connect to the master of the current directory. Raise NoMaster if there is none."""
    return connect(working_directory())


def choose_root(
    directory: Path, started_in: Path, source: Path | None = None, env: Mapping[str, str] = os.environ
) -> Path:
    """Choose the tree of a new master for a build in `directory`; jobs may write all of it.

    The choice is $TERMITE_ROOT, if set. Otherwise it is the top of the checkout around `directory`,
    if that is the user's. Otherwise it is the nearest directory that contains `directory`,
    `started_in` and `source`.
    """
    if root := env.get("TERMITE_ROOT"):
        return Path(os.path.realpath(root))
    for place in (directory, *directory.parents):
        if any(_is_checkout(place, name) for name in _VCS) and place.stat().st_uid == os.geteuid():
            return place
    # A build outside its project must not make a home directory or the whole disk writable.
    common = directory
    for other in (source or directory, started_in):
        wider = Path(os.path.commonpath([common, other]))
        common = common if wider in (Path("/"), home(), home().parent) else wider
    return common


def _is_checkout(top: Path, name: str) -> bool:
    """Return whether a directory has an entry of this name that no other user has put there."""
    return os.path.exists(top / name) and not is_of_stranger(top / name, top)


def start_embedded(root: Path, jobs: int = 0, exports: Sequence[Path] = (), at: str = "") -> tuple[Client, bool]:
    """Start a master for `root` with a worker of its own, detached from this process, and connect.

    `jobs` is its number of slots (0: one more than cores). `at` is the path at which the tree is
    built ("": its own). The second value is False if another process started a master a moment
    earlier, which is as good.
    Raise UserError if no master could be started.
    """
    log = log_file(root)
    ready, ready_for_child = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _become_master(root, jobs, exports, at, log, ready_for_child)
        os._exit(0)
    os.close(ready_for_child)
    os.wait()
    start = parse_start_report(_read_until_closed(ready))
    if start.error:
        try:
            return Client(root / MASTER_SOCKET), False
        except NoMaster:
            hint = start.hint or f"see {log}"
            raise UserError(start.error, hint=hint, reason=_reason_named(start.reason)) from None
    return Client(root / MASTER_SOCKET), True


def _reason_named(name: object) -> Reason:
    """Return the reason of an error that a master has sent."""
    return next((one for one in Reason if one == name), Reason.NEEDS_A_PERSON)


def _become_master(root: Path, jobs: int, exports: Sequence[Path], at: str, log: Path, ready: int) -> None:
    try:
        null = os.open(os.devnull, os.O_RDWR)
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        # Keep no descriptor of a ninja or make that started us: ninja thinks that a command runs
        # as long as its pipe is open, and make thinks the same of its jobserver.
        os.closerange(3, ready)
        os.closerange(ready + 1, os.sysconf("SC_OPEN_MAX"))
        os.set_inheritable(ready, True)
        command = [sys.executable, "-m", "termite.cli.master_command", "--embedded", "--ready-fd", str(ready)]
        command += ["--socket", str(root / MASTER_SOCKET), "--idle-exit", IDLE_S, "--keepalive", IDLE_S]
        command += ["--jobs", str(jobs), "--logfile", str(log)]
        command += [f"--export={path}" for path in exports]
        command += [f"--at={at}"] if at else []
        command += [f"--env-exclude={pattern}" for pattern in os.environ.get("TERMITE_ENV_EXCLUDE", "").split()]
        command += [f"--{flag}={os.environ[name]}" for name, flag in _FLAGS.items() if os.environ.get(name)]
        if settings := os.environ.get("TERMITE_SHARED_CACHE_SETTINGS"):
            command.append(f"--shared-cache-settings={os.path.abspath(settings)}")
        env = {name: text for name, text in os.environ.items() if name not in _OF_THE_BUILD}
        os.chdir("/")
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until the master can answer it
        os.execve(sys.executable, command, env)
    except OSError as error:
        os.write(ready, StartReport(f"cannot start a master: {error}").pack())
    finally:
        os._exit(127)


def _current_directory() -> str:
    """Return the working directory, or "" if it has been removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def _read_until_closed(fd: int) -> bytes:
    said = b""
    while wait_until_readable([fd], START_S):
        received = os.read(fd, READ_BYTES)
        if not received:
            break
        said += received
    os.close(fd)
    return said


def log_file(root: Path) -> Path:
    """Return the log of masters that are started for `root`. Raise UserError without a place."""
    return own_directory(STATE) / f"{tree_name(root)}.log"
