"""Set up other compiler distributors on this machine, as their manuals say, to measure them too.

* distcc has a server on the loopback interface.
* pump is the same with distcc's include server, so that preprocessing is distributed too.
* icecc has scheduler and client in one network namespace and the compiling daemon in another one,
  joined by a veth pair. In a single namespace, the client's own daemon would compile, without any
  network.
"""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.cpu import NAME, is_orphaned
from bench.daemons import HOST, free_port
from bench.rounds import BenchError
from projects import end

PACKAGES = ("distcc", "distcc-pump", "icecc", "ccache")
NETWORK = "10.213.77"  # first three bytes of the addresses in the two namespaces; nothing outside sees them
SCHEDULER_PORT = 8765
DISTCCD_LOG = "distccd.log"
DISTCCD_DONE = "COMPILE_OK"
ICECCD_DONE = "Remote compilation completed with exit code 0"
START_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer is another distributor that is ready to build.

    `prefix` are the words before the build tool's command, and `env` is added to its environment.
    The compiling daemon writes `done` into `log` for each compilation.
    """

    log: Path
    done: str
    prefix: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def compiled(self) -> int:
        """Return how many files the peer's daemon has compiled since it started."""
        return self.log.read_text(errors="replace").count(self.done)


@contextlib.contextmanager
def distcc(base: Path, jobs: int) -> Iterator[Peer]:
    """Start a distcc server on the loopback that runs any compiler; the client never falls back."""
    with _distccd(base, jobs) as port:
        env = _distcc_environment(base) | {"DISTCC_HOSTS": f"{HOST}:{port}/{jobs}"}
        yield Peer(base / DISTCCD_LOG, DISTCCD_DONE, env=env)


@contextlib.contextmanager
def pump(base: Path, jobs: int) -> Iterator[Peer]:
    """Start a distcc server, and let the build run in distcc's pump mode."""
    with _distccd(base, jobs) as port:
        env = _distcc_environment(base) | {"DISTCC_HOSTS": f"{HOST}:{port}/{jobs},cpp,lzo"}
        yield Peer(base / DISTCCD_LOG, DISTCCD_DONE, ("distcc-pump",), env)


@contextlib.contextmanager
def icecc(base: Path, jobs: int) -> Iterator[Peer]:
    """Start a scheduler and two daemons; only the daemon in the far namespace compiles.

    Raise BenchError if the user is not root, or if Debian's package icecc is not installed.
    """
    if os.geteuid() != 0:
        raise BenchError("icecc needs root here, because its daemons run in network namespaces")
    near, far = (f"{NAME}{os.getpid()}-{side}" for side in ("near", "far"))
    _remove_orphans()
    try:
        user = pwd.getpwnam("icecc")
    except KeyError as error:
        raise BenchError("the user icecc, which Debian's package makes, does not exist") from error
    with contextlib.ExitStack() as stack:
        for name in (near, far):
            stack.enter_context(_network_namespace(name))
            _empty(base / name, user.pw_uid)
        _join(near, far)
        scheduler = ["icecc-scheduler", "-n", "bench", "-p", str(SCHEDULER_PORT)]
        scheduler += ["-l", str(base / near / "scheduler.log")]
        stack.enter_context(_program([*_inside(near), *scheduler], base / "icecc.log"))
        for name, before, after in ((near, [], ["--no-remote"]), (far, _idle_looking(base), [])):
            daemon = ["iceccd", "-vv", "-n", "bench", "-N", name, "-m", str(jobs), "--nice", "0"]
            daemon += ["-s", f"{NETWORK}.1:{SCHEDULER_PORT}", "-b", str(base / name / "cache")]
            daemon += ["-l", str(base / name / "daemon.log"), *after]
            socket_file = {"ICECC_TEST_SOCKET": str(base / name / "socket")}
            stack.enter_context(_program([*_inside(name), *before, *daemon], base / "icecc.log", socket_file))
        for name in (near, far):
            _wait_for_line(base / name / "daemon.log", "Connected to scheduler")
        env = {"ICECC_TEST_SOCKET": str(base / near / "socket"), "ICECC_PREFERRED_HOST": far}
        yield Peer(base / far / "daemon.log", ICECCD_DONE, tuple(_inside(near)), env)


def _idle_looking(base: Path) -> list[str]:
    """Return words that show an idle machine to the daemon whose command follows them.

    The compiling daemon takes no job while its machine is busy, but here its machine is also the
    client's. A copy of /proc/stat that never changes looks like an idle machine.
    """
    stat = base / "stat"
    shutil.copyfile("/proc/stat", stat)
    script = f'mount --bind {stat} /proc/stat && exec "$@"'
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh"]


@contextlib.contextmanager
def _distccd(base: Path, jobs: int) -> Iterator[int]:
    base.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = ["distccd", "--daemon", "--no-detach", "--allow", HOST, "--listen", HOST, "--port", str(port)]
    log = base / DISTCCD_LOG
    # Without --enable-tcp-insecure, distccd refuses compilers that are not in /usr/lib/distcc.
    # CMake names a compiler by its full path.
    command += ["--jobs", str(jobs), "--log-file", str(log), "--enable-tcp-insecure", "--nice", "0"]
    log.touch(mode=0o666)
    os.chmod(log, 0o666)
    with _program(command, base / "distccd.out"):
        deadline = time.monotonic() + START_LIMIT_S
        while not _is_open(port):
            if time.monotonic() > deadline:
                raise BenchError(f"distccd does not listen: see {log}")
            time.sleep(0.05)
        yield port


def _distcc_environment(base: Path) -> dict[str, str]:
    (base / "state").mkdir(exist_ok=True)
    return {"DISTCC_FALLBACK": "0", "DISTCC_DIR": str(base / "state")}


@contextlib.contextmanager
def _network_namespace(name: str) -> Iterator[None]:
    _ip("netns", "add", name)
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        _ip("netns", "delete", name)


def _remove_orphans() -> None:
    """Delete the network namespaces of runs that were killed."""
    for line in _ip("netns", "list").splitlines():
        if is_orphaned(name := line.split()[0]):
            with contextlib.suppress(BenchError):  # another run was faster
                _ip("netns", "delete", name)


def _join(near: str, far: str) -> None:
    """Join two namespaces by a veth pair; the kernel removes it together with them."""
    _ip("-n", near, "link", "add", "veth", "type", "veth", "peer", "name", "veth", "netns", far)
    for number, name in enumerate((near, far), 1):
        _ip("-n", name, "address", "add", f"{NETWORK}.{number}/24", "dev", "veth")
        _ip("-n", name, "link", "set", "veth", "up")


def _inside(name: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{name}"]


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise BenchError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@contextlib.contextmanager
def _program(command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Iterator[None]:
    """Run a daemon in a process group of its own, and end it with the context."""
    with log.open("a") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(env or {})},
            process_group=0,
        )
    try:
        yield
    finally:
        end(process)


def _wait_for_line(log: Path, line: str) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while not log.exists() or line not in log.read_text(errors="replace"):
        if time.monotonic() > deadline:
            raise BenchError(f"{log} does not say {line!r} after {START_LIMIT_S:.0f} s")
        time.sleep(0.1)


def _empty(directory: Path, uid: int) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "cache").mkdir(parents=True)
    for path in (directory, directory / "cache"):
        os.chown(path, uid, -1)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
