"""Start termite's daemons as users do, each in a process of its own.

One process each lets the benchmark measure the CPU of each daemon separately.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from bench.cpu import process_cpu_s
from bench.rounds import BenchError
from projects import CHECKOUT, COMMANDS, mirrors_below
from termite.engine.loop.readiness import wait_until_readable

HOST = "127.0.0.1"
START_LIMIT_S = 60.0
STOP_LIMIT_S = 15.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet is a coordinator and the workers that register there.

    `base` is a directory that only this run uses.
    """

    base: Path
    secret: Path
    coordinator: str  # host:port


@dataclass(frozen=True, slots=True)
class Master:
    """A master is a running termite-master that serves `tree`."""

    pid: int
    tree: Path
    env: Mapping[str, str]

    def status(self) -> dict[str, Any]:
        """Return the answer of `termite-ctl status --json`. Raise BenchError if none comes."""
        done = self.ctl("status", "--json")
        if done.returncode:
            raise BenchError(f"the master does not answer: {done.stderr.strip()}")
        answer: dict[str, Any] = msgspec.json.decode(done.stdout)
        return answer

    def ctl(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run termite-ctl with these arguments against this master."""
        command = [str(COMMANDS / "termite-ctl"), *arguments]
        return subprocess.run(
            command, cwd=self.tree, env=self.env, capture_output=True, text=True, check=False, timeout=60
        )

    def wait_for_workers(self, count: int) -> None:
        """Wait until the master knows `count` workers. Raise BenchError after START_LIMIT_S."""
        deadline = time.monotonic() + START_LIMIT_S
        while len(known := self.status()["known_workers"]) < count:
            if time.monotonic() > deadline:
                raise BenchError(f"after {START_LIMIT_S:.0f} s the master knows {known} instead of {count} workers")
            time.sleep(0.05)

    def cpu_s(self) -> float:
        """Return the CPU time that the master has used so far."""
        return process_cpu_s(self.pid)


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker is a running termite-worker on this machine."""

    pid: int
    address: str

    def mirrors(self) -> list[int]:
        """Return the process ids of the worker's mirrors."""
        return mirrors_below(self.pid)


@contextlib.contextmanager
def fleet(base: Path) -> Iterator[Fleet]:
    """Start a coordinator with a new secret; stop it at the end."""
    base.mkdir(parents=True, exist_ok=True)
    secret = base / "secret.txt"
    secret.unlink(missing_ok=True)
    subprocess.run([str(COMMANDS / "termite-ctl"), "secret", str(secret)], check=True, capture_output=True, timeout=60)
    words = ["--listen", HOST, "--port", "0", "--secret", str(secret)]
    with daemon([str(COMMANDS / "termite-coordinator"), *words], base / "coordinator.log", environment(base)) as (
        _,
        at,
    ):
        yield Fleet(base, secret, at)


@contextlib.contextmanager
def worker(fleet: Fleet, name: str, *arguments: str, cache: Path | None = None) -> Iterator[Worker]:
    """Start a worker of the fleet; stop it at the end.

    `cache` is its cache directory, which keeps its contents between runs; None means one in the
    fleet's directory.
    """
    words = ["--name", name, "--listen", HOST, "--secret", str(fleet.secret)]
    words += [] if "--port" in arguments else ["--port", "0"]
    words += ["--coordinator", fleet.coordinator, "--cachedir", str(cache or fleet.base / f"cache-{name}"), *arguments]
    log = fleet.base / f"worker-{name}.log"
    with daemon([str(COMMANDS / "termite-worker"), *words], log, environment(fleet.base)) as (process, at):
        yield Worker(process.pid, at)


@contextlib.contextmanager
def master(
    fleet: Fleet, tree: Path, *arguments: str, short: str = "0", program: Sequence[str] = ()
) -> Iterator[Master]:
    """Start a master for `tree` that uses the workers of the fleet; stop it at the end.

    `program` stands for termite-master if it is given.
    """
    words = ["--secret", str(fleet.secret), "--coordinator", fleet.coordinator]
    words += ["--socket", str(tree / ".termite-socket"), "--short", short, *arguments]
    env = environment(fleet.base)
    with daemon([*(program or [str(COMMANDS / "termite-master")]), *words], fleet.base / "master.log", env) as (
        process,
        _,
    ):
        yield Master(process.pid, tree, env)


@contextlib.contextmanager
def daemon(command: Sequence[str], log: Path, env: Mapping[str, str]) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Start a daemon and yield it with the address or place that it prints; stop it at the end.

    The daemon is ready once it has printed `listens on ADDRESS` or `serves PLACE`. Raise BenchError
    if it does not print such a line first.
    """
    with log.open("a") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=output, text=True, env=env
        )
    assert process.stdout is not None
    try:
        said = process.stdout.readline() if _speaks(process.stdout) else ""
        found = re.search(r"(?:listens on|serves) ([^\s,]+)", said)
        if found is None:
            raise BenchError(f"{Path(command[0]).name} did not start: see {log}")
        yield process, found[1]
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _speaks(output: IO[str]) -> bool:
    return bool(wait_until_readable([output.fileno()], START_LIMIT_S))


def environment(base: Path) -> dict[str, str]:
    """Return our environment, with caches and logs in `base`, and with bench on Python's path.

    Variables of make and of termite are left out, because the benchmark itself may run below a
    make.
    """
    ours = {name: text for name, text in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "TERMITE_"))}
    path = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "tools")])
    return ours | {
        "XDG_CACHE_HOME": str(base / "cache"),
        "XDG_STATE_HOME": str(base / "state"),
        "PYTHONPATH": path,
        "TERMITE_VERBOSE": "1",
    }


def free_port() -> int:
    """Return a TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a program of this directory."""
    return [sys.executable, "-m", f"bench.{name}", *arguments]
