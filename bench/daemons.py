"""termite's daemons as users start them, each in a process of its own, so that the CPU of each can be told apart."""

import contextlib
import os
import re
import select
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

HOST = "127.0.0.1"
START_LIMIT_S = 60.0
STOP_LIMIT_S = 15.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """A coordinator and whoever registers there. `base` is a directory of this run's own."""

    base: Path
    secret: Path
    coordinator: str  # host:port


@dataclass(frozen=True, slots=True)
class Master:
    """A master that serves `tree`."""

    pid: int
    tree: Path
    env: Mapping[str, str]

    def status(self) -> dict[str, Any]:
        done = self.ctl("status", "--json")
        if done.returncode:
            raise BenchError(f"there is no master to ask: {done.stderr.strip()}")
        answer: dict[str, Any] = msgspec.json.decode(done.stdout)
        return answer

    def ctl(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [str(COMMANDS / "termite-ctl"), *arguments]
        return subprocess.run(
            command, cwd=self.tree, env=self.env, capture_output=True, text=True, check=False, timeout=60
        )

    def wait_for_workers(self, count: int) -> None:
        """Until it knows so many."""
        deadline = time.monotonic() + START_LIMIT_S
        while len(known := self.status()["known_workers"]) < count:
            if time.monotonic() > deadline:
                raise BenchError(f"the master knows {known} after {START_LIMIT_S:.0f} s, not {count} workers")
            time.sleep(0.05)

    def cpu_s(self) -> float:
        return process_cpu_s(self.pid)


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker on this machine."""

    pid: int
    address: str

    def mirrors(self) -> list[int]:
        return mirrors_below(self.pid)


@contextlib.contextmanager
def fleet(base: Path) -> Iterator[Fleet]:
    """A coordinator with a secret of its own."""
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
    """A worker of the fleet. `cache`: what it keeps between its runs, empty if the caller has emptied it."""
    words = ["--name", name, "--listen", HOST, "--secret", str(fleet.secret)]
    words += [] if "--port" in arguments else ["--port", "0"]
    words += ["--coordinator", fleet.coordinator, "--cachedir", str(cache or fleet.base / f"cache-{name}"), *arguments]
    log = fleet.base / f"worker-{name}.log"
    with daemon([str(COMMANDS / "termite-worker"), *words], log, environment(fleet.base)) as (process, at):
        yield Worker(process.pid, at)


@contextlib.contextmanager
def master(fleet: Fleet, tree: Path, *arguments: str, short: str = "0") -> Iterator[Master]:
    """The master of `tree`, with whatever workers the fleet has."""
    words = ["--secret", str(fleet.secret), "--coordinator", fleet.coordinator]
    words += ["--socket", str(tree / ".termite-socket"), "--short", short, *arguments]
    env = environment(fleet.base)
    with daemon([str(COMMANDS / "termite-master"), *words], fleet.base / "master.log", env) as (process, _):
        yield Master(process.pid, tree, env)


@contextlib.contextmanager
def daemon(command: Sequence[str], log: Path, env: Mapping[str, str]) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Start it and wait for its line `listens on ADDRESS` or `serves PLACE`; that word; stop it at the end."""
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
    return bool(select.select([output], [], [], START_LIMIT_S)[0])


def environment(base: Path) -> dict[str, str]:
    """Ours without what a make that runs us has put there, with caches and logs in `base`, and the way to bench."""
    ours = {name: text for name, text in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "TERMITE_"))}
    path = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "tools")])
    return ours | {
        "XDG_CACHE_HOME": str(base / "cache"),
        "XDG_STATE_HOME": str(base / "state"),
        "PYTHONPATH": path,
        "TERMITE_VERBOSE": "1",
    }


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs a program of this directory."""
    return [sys.executable, "-m", f"bench.{name}", *arguments]
