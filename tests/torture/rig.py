"""A rig is the set of daemons of one round: coordinator, workers, lines between them, and a master.

Daemons run in a place (tests/e2e/places.py), so that they have their own mounts. Any of them may
die and be started again under the same name, port and cache.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.cluster import free_port
from tests.e2e.places import CHECKOUT, COMMANDS, IS_ROOT, Place

HOST = "127.0.0.1"
START_S = 20.0
STOP_S = 20.0
STATUS_S = 5.0
LOOK_S = 0.02
SETTLE_S = 2.5  # until the scratch directory of a killed worker counts as abandoned
WORKER_JOBS = 4
WORKERS = ("w0", "w1")


class RigError(Exception):
    """A daemon does not start. The round fails, because no fault explains that."""


BELOW = "app"  # a directory with sources and results


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the daemons that a fault wants; 0 and empty mean the usual ones.

    `below_mb` is for a file system of its own for the directory BELOW of the tree.

    `prefix` stands before the master's command line, such as prlimit with its flags.
    """

    cache_mb: int = 0
    scratch_mb: int = 0
    tree_mb: int = 0
    below_mb: int = 0
    lines: bool = False
    delay_s: float = 0.0
    rate: int = 0
    prefix: tuple[str, ...] = ()


USUAL_SETTINGS = Settings()


@dataclass
class Rig:
    """A rig of one round. `short` is the master's flag of that name."""

    where: Place
    tree: Path
    settings: Settings
    short: str
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    lines: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ports = {name: free_port() for name in ("coordinator", *WORKERS)}
        self._line_ports: dict[str, int] = {}
        self.coordinator = f"{HOST}:{self._ports['coordinator']}"
        self._secret = self.where.base / "secret.txt"

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything, and wait until the master knows all workers."""
        self.where.run([self.where.termite("termite-ctl"), "secret", str(self._secret)], self.where.base)
        for name in WORKERS:
            self._mount(self.cache(name), self.settings.cache_mb, 0o755)
            self._mount(self.scratch(name), self.settings.scratch_mb, 0o1777)
        for name in ("coordinator", *WORKERS, "master"):
            self.start_daemon(name)
        self.wait_until_complete()

    def wait_until_complete(self) -> None:
        """Wait until the master knows all workers."""
        deadline = time.monotonic() + START_S
        while len(self.status().get("known_workers", ())) < len(WORKERS):
            if time.monotonic() > deadline:
                raise RigError(f"the master does not know all workers: {self.status()}")
            time.sleep(LOOK_S)

    def start_daemon(self, name: str) -> None:
        """Start one daemon, for the first time or again, and wait until it listens."""
        program, flags, words = self._command(name)
        prefix = self.settings.prefix if name == "master" else ()
        cwd = self.tree if name == "master" else self.where.base
        log = self.log(name)
        known_bytes = log.stat().st_size if log.exists() else 0
        argv = [*prefix, *self.argv(name, program), *flags, *self.flags(name)]
        with log.open("ab") as output:
            self.processes[name] = self.where.start(argv, cwd, stdout=output.fileno(), stderr=output.fileno())
        deadline = time.monotonic() + START_S
        while words.encode() not in log.read_bytes()[known_bytes:]:
            if self.processes[name].poll() is not None or time.monotonic() > deadline:
                raise RigError(f"{name} does not start: {log.read_text(errors='replace')[-500:]}")
            time.sleep(LOOK_S)

    def argv(self, name: str, program: str) -> list[str]:
        """Return the words that run a program as the daemon `name`, without its flags."""
        return [str(COMMANDS / "python"), str(COMMANDS / program)]

    def flags(self, name: str) -> Sequence[str]:
        """Return more flags for the daemon `name`."""
        return ()

    def _command(self, name: str) -> tuple[str, Sequence[str], str]:
        common = ("-secret", str(self._secret))
        listen = ("-listen", HOST, "-port", str(self._ports.get(name, 0)))
        match name:
            case "coordinator":
                return "termite-coordinator", (*common, *listen), "termite-coordinator: listens"
            case "master":
                flags = (*common, "-coordinator", self.coordinator, "-short", self.short)
                return "termite-master", flags, "termite-master: serves"
        places = ("-cachedir", str(self.cache(name)), "-tmpdir", str(self.scratch(name)))
        disk = ("-scratch", "disk") if self.settings.scratch_mb else ()
        identity = ("-coordinator", self.coordinator, "-name", name, "-jobs", str(WORKER_JOBS))
        return (
            "termite-worker",
            (*common, *listen, *identity, *places, *disk, *self._advertised(name)),
            "termite-worker: listens",
        )

    def _advertised(self, name: str) -> tuple[str, ...]:
        if not self.settings.lines:
            return ()
        if name not in self.lines:
            self.lines[name] = line = subprocess.Popen(
                [sys.executable, "-m", "tests.torture.bad_line", str(self._ports[name])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=CHECKOUT,
            )
            assert line.stdout is not None
            self._line_ports[name] = int(line.stdout.readline())
            self.order(name, f"delay {self.settings.delay_s}")
            self.order(name, f"rate {self.settings.rate}")
        return ("-advertise", f"{HOST}:{self._line_ports[name]}")

    def order(self, worker: str, order: str) -> None:
        """Send an order to the line of a worker (tests/torture/bad_line.py)."""
        line = self.lines[worker]
        assert line.stdin is not None
        line.stdin.write(order.encode() + b"\n")
        line.stdin.flush()

    def revive(self) -> None:
        """Start the daemons again that a fault has ended. Raise RigError if one does not start."""
        known = [name for name in ("coordinator", *WORKERS, "master") if name in self.processes]
        dead = [name for name in known if self.processes[name].poll() is not None]
        if dead:
            time.sleep(SETTLE_S)
        for name in dead:
            self.start_daemon(name)

    def stop(self) -> list[str]:
        """Stop all daemons as a user would, and return what went wrong.

        Daemons that a fault has ended are started again first: the next start must remove what they
        left.
        """
        problems = []
        try:
            self.revive()
        except RigError as error:
            problems.append(f"left: no daemon starts after the fault: {error}")
        for name in ("master", *WORKERS, "coordinator"):
            if name in self.processes:
                problems += self.stop_daemon(name)
        return problems

    def stop_daemon(self, name: str) -> list[str]:
        """Stop one daemon as a user would, and return what went wrong."""
        process = self.processes[name]
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        try:
            code = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return [f"hang: {name} does not end within {STOP_S:g} s of SIGTERM"]
        return [f"wrong: {name} ended with {code}"] if code else []

    def kill(self) -> None:
        """End what is still there of the daemons and lines, whatever its state."""
        for process in (*self.processes.values(), *self.lines.values()):
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    # -- places --------------------------------------------------------------------------------------------------------

    def cache(self, worker: str) -> Path:
        return self.where.base / f"cache-{worker}"

    def scratch(self, worker: str) -> Path:
        return self.where.base / f"scratch-{worker}"

    def log(self, name: str) -> Path:
        return self.where.base / f"{name}.log"

    def seen(self, path: Path) -> Path:
        """Return a path of the place as this process reaches it, through mounts of the place."""
        return Path(f"/proc/{self.where.holder}/root{path}") if self.where.holder else path

    def mount_tree(self) -> None:
        """Make the tree or a directory of it a small file system, if the settings say so."""
        self._mount(self.tree, self.settings.tree_mb, 0o755)
        if self.settings.below_mb:
            self._mount(self.seen(self.tree) / BELOW, 0, 0o755)
            self._mount(self.tree / BELOW, self.settings.below_mb, 0o755)

    def _mount(self, path: Path, size_mb: int, mode: int) -> None:
        path.mkdir(exist_ok=True)
        if IS_ROOT:
            os.chown(path, self.where.uid, self.where.uid)
        path.chmod(mode)
        if size_mb:
            words = f"size={size_mb}m,mode={mode:o},uid={self.where.uid},gid={self.where.uid}"
            mount = ["mount", "-t", "tmpfs", "-o", words, "tmpfs", str(path)]
            subprocess.run([*self.where.enter, "--", *mount], check=True)

    # -- use -----------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return the master's status, or {} if it does not answer within some seconds."""
        asked = self.where.start([self.where.termite("termite-ctl"), "status", "--json"], self.tree)
        try:
            answer, _ = asked.communicate(timeout=STATUS_S)
            found: dict[str, Any] = json.loads(answer or b"{}")
        except subprocess.TimeoutExpired:
            asked.kill()
            asked.communicate()
            return {}
        return found

    def build(
        self, command: Sequence[str], output: Path, env: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Start a build through the front end of its tool.

        `output` gets all that the build prints.
        """
        argv = [self.where.termite(f"termite-{command[0]}"), *command[1:]]
        with output.open("wb") as file:
            return self.where.start(argv, self.tree, stdout=file.fileno(), stderr=file.fileno(), env=env)
