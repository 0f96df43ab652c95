"""Start clusters of real processes: embedded in one master, or with daemons of their own."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from tests.e2e.places import COMMANDS, IS_ROOT, Outcome, Place
from tests.e2e.waiting import wait_until

STOP_LIMIT_S = 10.0
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Tree:
    """A user's project: a writable root in a place, and the commands that the user runs there."""

    where: Place
    path: Path

    def write(self, name: str, content: str | bytes, mode: int = 0o644) -> Path:
        """Make a file and its parents as the user of the place."""
        path = self.path / name
        self.mkdir(str(path.parent.relative_to(self.path)))
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        self.own(path)
        return path

    def mkdir(self, name: str) -> Path:
        path = self.path
        for part in Path(name).parts:
            path = path / part
            if not path.exists():
                path.mkdir()
                self.own(path)
        return path

    def own(self, path: Path) -> None:
        if IS_ROOT:
            os.chown(path, self.where.uid, self.where.uid, follow_symlinks=False)

    def plain(self, *argv: str | bytes, within: str = ".", **options: Any) -> Outcome:
        """Run a command without termite."""
        return self.where.run(argv, self.path / within, **options)

    def termite(self, *argv: str | bytes, within: str = ".", **options: Any) -> Outcome:
        """Run a command through `termite`."""
        return self.where.run([self.where.termite("termite"), *argv], self.path / within, **options)

    def make(self, *arguments: str, within: str = ".", **options: Any) -> Outcome:
        return self.where.run([self.where.termite("termite-make"), *arguments], self.path / within, **options)

    def ctl(self, *arguments: str, within: str = ".", **options: Any) -> Outcome:
        return self.where.run([self.where.termite("termite-ctl"), *arguments], self.path / within, **options)

    def status(self) -> dict[str, Any]:
        done = self.ctl("status", "--json")
        assert done.code == 0, done
        return cast(dict[str, Any], json.loads(done.stdout))

    def jobs(self, kind: str = "remote") -> int:
        return int(self.status()["jobs"][kind])

    def subtree(self, name: str) -> "Tree":
        return Tree(self.where, self.mkdir(name))


def new_tree(where: Place, name: str = "project") -> Tree:
    path = where.base / name
    path.mkdir()
    tree = Tree(where, path)
    tree.own(path)
    return tree


@contextmanager
def embedded(tree: Tree, *, env: Mapping[str, str] | None = None, short: str = "0") -> Iterator[Tree]:
    """Start a master for `tree` with a coordinator and a worker inside.

    Commands that are known to be short would run here. `short` is 0, so that they reach the worker.
    """
    started = tree.ctl("start", str(tree.path), env={**(env or {}), "TERMITE_SHORT": short})
    try:
        assert started.code == 0, started
        yield tree
    finally:
        tree.ctl("shutdown")


@dataclass
class Daemon:
    """A running daemon and its log."""

    where: Place
    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, words: str) -> None:
        wait_until(lambda: words in self.text() or self.process.poll() is not None, f"{self.name}: {words}", self.text)
        assert words in self.text(), f"{self.name} ended with {self.process.returncode}:\n{self.text()}"

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP_LIMIT_S)


@contextmanager
def daemon(
    where: Place, name: str, *arguments: str, cwd: Path | None = None, words: str = "listen"
) -> Iterator[Daemon]:
    """Start a daemon, wait until it prints that it listens, and stop it at the end of the block."""
    log = where.base / f"{name}-{len(list(where.base.iterdir()))}.log"
    # The interpreter is named, because a bare root may lack the shell of the script's first line.
    program = [str(COMMANDS / "python"), str(COMMANDS / name)]
    argv: Sequence[str] = [*program, *arguments]
    with log.open("wb") as output:
        process = where.start(argv, cwd or where.base, stdout=output.fileno(), stderr=output.fileno())
    running = Daemon(where, name, process, log)
    try:
        running.wait_for(f"{name}: serves" if name == "termite-master" else f"{name}: listens")
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{name} does not end on SIGTERM:\n{running.text()}") from None


@dataclass
class Cluster:
    """A coordinator, workers and a master as daemons, and the tree of the master."""

    tree: Tree
    secret: Path
    coordinator: Daemon
    workers: list[Daemon]
    master: Daemon
    address: str
    stack: ExitStack = field(repr=False)

    def add_worker(self, where: Place, name: str, *arguments: str) -> Daemon:
        worker = self.stack.enter_context(start_worker(where, self.secret_for(where), self.address, name, *arguments))
        self.workers.append(worker)
        return worker

    def secret_for(self, where: Place) -> Path:
        return copy_secret(self.secret, where)

    def wait_for_workers(self, count: int) -> None:
        wait_until(
            lambda: len(self.tree.status()["known_workers"]) == count,
            f"the master knows {count} workers",
            lambda: f"{self.tree.status()}\n{self.master.text()}",
        )

    def jobs_by_worker(self) -> dict[str, int]:
        """Return how many jobs each worker has done in its present leases."""
        done: dict[str, int] = {}
        for lease in self.tree.status()["workers"]:
            done[lease["name"]] = done.get(lease["name"], 0) + lease["jobs"]
        return done


@contextmanager
def cluster(
    tree: Tree,
    workers: Sequence[Place],
    *,
    coordinator_at: Place | None = None,
    host: str = HOST,
    jobs: int = 2,
    short: str = "0",
    coordinator_flags: Sequence[str] = (),
    master_flags: Sequence[str] = (),
) -> Iterator[Cluster]:
    """Start a coordinator, one worker in each of `workers`, and a master for `tree`.

    They connect through `host`. `short` has the same meaning as in `embedded`.
    """
    at = coordinator_at or tree.where
    port = free_port()
    address = f"{host}:{port}"
    secret = new_secret(tree.where)
    with ExitStack() as stack:
        arguments = ("-port", str(port), "-secret", str(copy_secret(secret, at)), *coordinator_flags)
        coordinator = stack.enter_context(daemon(at, "termite-coordinator", *arguments))
        running = [
            stack.enter_context(start_worker(where, copy_secret(secret, where), address, f"w{n}", "-jobs", str(jobs)))
            for n, where in enumerate(workers, 1)
        ]
        flags = ("-secret", str(secret), "-coordinator", address, "-short", short, *master_flags)
        master = stack.enter_context(daemon(tree.where, "termite-master", *flags, cwd=tree.path))
        whole = Cluster(tree, secret, coordinator, running, master, address, stack)
        whole.wait_for_workers(len(workers))
        yield whole


@contextmanager
def start_worker(where: Place, secret: Path, coordinator: str, name: str, *arguments: str) -> Iterator[Daemon]:
    cache = where.base / f"cache-{name}"
    fixed = ("-name", name, "-port", "0", "-secret", str(secret), "-coordinator", coordinator, "-cachedir", str(cache))
    with daemon(where, "termite-worker", *fixed, *arguments) as running:
        yield running


def new_secret(where: Place) -> Path:
    path = where.base / "secret.txt"
    done = where.run([where.termite("termite-ctl"), "secret", str(path)], where.base)
    assert done.code == 0, done
    return path


def copy_secret(secret: Path, where: Place) -> Path:
    path = where.base / "secret.txt"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(secret.read_bytes())
        if IS_ROOT:
            os.chown(path, where.uid, where.uid)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def ancestors(pid: int) -> list[int]:
    """Return the pids of a process and its ancestors, as the host sees them."""
    chain = []
    while pid > 1:
        chain.append(pid)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pid = int(fields[1])
    return chain


def processes_running(words: bytes) -> list[int]:
    """Return the pids, as the host sees them, of the processes whose command line has `words`.

    The arguments of a command line are separated by NUL.
    """
    found = []
    for directory in Path("/proc").iterdir():
        try:
            if directory.name.isdigit() and words in (directory / "cmdline").read_bytes():
                found.append(int(directory.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]
