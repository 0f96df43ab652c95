"""The daemons of a sweep, whose system calls an order lets fail, and one point of a sweep.

The daemons stay warm from one point to the next. One that was killed is started again.
"""

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.cluster import Tree
from tests.e2e.places import CHECKOUT, COMMANDS, Outcome
from tests.torture import faulty_calls
from tests.torture.rig import WORKERS, Rig, RigError
from tests.torture.sweep_jobs import SweepJob

LAUNCHER = "launcher"  # the role of a process that obeys a variable
LOST, NOWHERE = 101, 103  # exit codes: the command was lost, and no worker can run it
LIMIT_S = 25.0  # of a job in trouble; the longest waits are for a worker (3 s) and its pauses
SERVED_S = 20.0  # until a job runs on a worker again after a fault
COLD_KEEPALIVE_S = "0.05"  # a lease ends before the next job comes
COLD_S = 10.0
COLD_LOOKS = 3  # in a row
LOOK_S = 0.03
# Of launcher_calls.c.
LAUNCHER_CALLS = ("read", "write", "send", "tee", "socket", "connect", "poll", "getrandom", "readdir")
COUNT, MANY = "count", 10**6  # notes the names of the calls, and changes nothing
ALL_CALLS = ",".join(f"{shell}." for shell in faulty_calls.SHELLS)
OWN_PAUSE_S = 0.2  # of a daemon that was killed, before it is started again


@dataclass
class SweepRig(Rig):
    """A rig whose daemons obey orders."""

    is_cold: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.control = self.where.base / "control"
        self.launcher = self.where.base / "launcher" / "termite"
        self._program = self.where.base / "faulty_calls.py"

    def start(self) -> None:
        """Start everything, and wait until the master knows all workers."""
        self.control.mkdir()
        self.control.chmod(0o1777)  # the users of mirrors write here too
        shutil.copy(faulty_calls.__file__, self._program)
        self._program.chmod(0o644)
        build_launcher(self.launcher)
        super().start()

    def argv(self, name: str, program: str) -> list[str]:
        role = "worker" if name in WORKERS else name
        return [sys.executable, str(self._program), str(self.control), role]

    def flags(self, name: str) -> Sequence[str]:
        return ("-keepalive", COLD_KEEPALIVE_S) if self.is_cold and name == "master" else ()

    def restart_dead(self) -> None:
        """Start the daemons again that have ended."""
        dead = [name for name, process in self.processes.items() if process.poll() is not None]
        for name in sorted(dead, key=("coordinator", *WORKERS, "master").index):
            self.start_daemon(name)
        if dead:
            self.wait_until_complete()


def build_launcher(path: Path) -> None:
    """Build a launcher with other system calls. Its `termite-redo` stands beside it."""
    path.parent.mkdir()
    native = CHECKOUT / "native" / "launcher"
    sources = [*native.rglob("*.c"), Path(__file__).with_name("launcher_calls.c")]
    wraps = [f"-Wl,--wrap={name}" for name in LAUNCHER_CALLS]
    flags = ("-std=c11", "-O0", "-D_GNU_SOURCE", '-DTERMITE_VERSION="sweep"')
    subprocess.run(["cc", *flags, "-o", path, *sources, *wraps], check=True)
    (path.parent / "termite-redo").symlink_to(COMMANDS / "termite-redo")


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a sweep: what happens at which call of which process."""

    role: str
    calls: str
    number: int
    what: str
    often: int = 1


@dataclass
class Hit:
    """The outcome of one point. `problems` begin with "wrong:", "hang:" or "left:"."""

    was_reached: str = ""
    problems: list[str] = field(default_factory=list)


class Sweeper:
    """Hits the points of one rig, one after the other."""

    def __init__(self, rig: SweepRig, tree: Tree) -> None:
        self.rig = rig
        self._tree = tree
        self._called: dict[str, dict[str, list[str]]] = {}
        self._serials = map(str, itertools.count(time.time_ns() % 10**9 * 1000))

    def hit(self, job: SweepJob, point: Point | None) -> Hit:
        """Run the job with the fault, check it, and check that the daemons serve the next job."""
        serial = next(self._serials)
        hit = Hit()
        job.fill(self._tree, serial)
        if job.is_cold:
            self._wait_until_cold()
        order = self.rig.control / (point.role if point else "nobody")
        reached = self.rig.control / f"reached-{serial}"
        if point is not None and point.role != LAUNCHER:
            replace_file(order, f"{serial} {point.calls} {point.number} {point.what} {point.often}")
        try:
            self._run(job, serial, hit, self._launcher_words(point, reached))
        finally:
            order.unlink(missing_ok=True)
        if reached.exists():
            hit.was_reached = reached.read_text()
            reached.unlink()
        self._check_next(hit)
        return hit

    def count(self, job: SweepJob, role: str, calls: str) -> int:
        """Return how many of these calls the job needs if nothing fails."""
        if job.name not in self._called:
            self._called[job.name] = self._calls_of(job)
        names = self._called[job.name].get(role, [])
        return sum(name == calls if role == LAUNCHER else name.startswith(calls) for name in names)

    def _calls_of(self, job: SweepJob) -> dict[str, list[str]]:
        """Run the job once, and return the names of the calls of each process, by its role."""
        if not job.is_cold:
            self._expect_no_trouble(self.hit(job, None))  # opens the lease
        serial = next(self._serials)
        files = {role: self.rig.control / f"reached-{serial}-{role}" for role in (*faulty_calls.SHELLS_OF, LAUNCHER)}
        job.fill(self._tree, serial)
        if job.is_cold:
            self._wait_until_cold()
        for role in faulty_calls.SHELLS_OF:
            replace_file(self.rig.control / role, f"{serial}-{role} {ALL_CALLS} 1 {COUNT} {MANY}")
        hit = Hit()
        try:
            self._run(job, serial, hit, self._launcher_words(Point(LAUNCHER, "all", 1, COUNT), files[LAUNCHER]))
        finally:
            for role in faulty_calls.SHELLS_OF:
                (self.rig.control / role).unlink(missing_ok=True)
        self._check_next(hit)
        self._expect_no_trouble(hit)
        called = {role: file.read_text().splitlines() for role, file in files.items() if file.exists()}
        for file in files.values():
            file.unlink(missing_ok=True)
        return called

    def _expect_no_trouble(self, hit: Hit) -> None:
        if hit.problems:
            raise RigError(f"without a fault: {hit.problems}")

    def _launcher_words(self, point: Point | None, reached: Path) -> list[str]:
        """Return the words that run a launcher, with the point's fault if it is of the launcher."""
        if point is None or point.role != LAUNCHER:
            return [self.rig.where.termite("termite")]
        what = getattr(errno, point.what) if point.what.isupper() else point.what
        order = f"TERMITE_SWEEP={point.calls} {point.number} {what} {reached}"
        return ["env", order, str(self.rig.launcher)]

    def _run(self, job: SweepJob, serial: str, hit: Hit, launcher: list[str]) -> None:
        content = job.stdin(serial) if job.stdin else b""
        stdin = subprocess.PIPE if job.stdin else subprocess.DEVNULL
        process = self.rig.where.start([*launcher, "sh", "-c", job.script], self._tree.path, stdin=stdin)
        try:
            out, err = process.communicate(content if job.stdin else None, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            hit.problems.append(f"hang: the job does not end within {LIMIT_S:g} s")
            _kill_group(process)
            return
        hit.problems += verdict(job, serial, self.rig.seen(self._tree.path), Outcome(process.returncode, out, err))

    def _check_next(self, hit: Hit) -> None:
        """Check that the next job runs on a worker. Daemons that were killed are started first."""
        deadline = time.monotonic() + SERVED_S
        while True:
            try:
                self.rig.restart_dead()
            except RigError as error:
                hit.problems.append(f"wrong: {error}")
                return
            argv = [self.rig.where.termite("termite"), "sh", "-c", "echo next; exit 5"]
            process = self.rig.where.start(argv, self._tree.path, env={"TERMITE_LOCAL": "never"})
            try:
                out, err = process.communicate(timeout=LIMIT_S)
            except subprocess.TimeoutExpired:
                hit.problems.append("hang: the next job does not end")
                _kill_group(process)
                return
            if (process.returncode, out) == (5, b"next\n"):
                return
            if process.returncode not in (NOWHERE, LOST):
                hit.problems.append(f"wrong: the next job: exit code {process.returncode}, {out!r}, {err!r}")
                return
            if time.monotonic() > deadline:
                hit.problems.append(f"wrong: no job reaches a worker any more: {err!r}")
                return
            time.sleep(OWN_PAUSE_S)

    def _wait_until_cold(self) -> None:
        """Wait until there is no lease. The status does not show one that is being opened."""
        deadline = time.monotonic() + COLD_S
        cold = 0
        while cold < COLD_LOOKS:
            cold = 0 if self.rig.status().get("workers") else cold + 1
            if time.monotonic() > deadline:
                raise RigError("an idle lease is not given back")
            time.sleep(LOOK_S)


def verdict(job: SweepJob, serial: str, tree: Path, done: Outcome) -> Iterator[str]:
    """Check the effects in `tree`, the exit code, and the output of a job that has ended.

    A job of which the user was told that it was lost, or whose launcher was killed, may have
    happened or not. It must not have happened twice.
    """
    lines = done.stderr.splitlines(keepends=True)
    said = b"".join(line for line in lines if line.startswith(b"termite: "))
    own = b"".join(line for line in lines if not line.startswith(b"termite: "))
    whole = job.stdout(serial)
    if (done.code == LOST and said) or done.code == -signal.SIGKILL:
        if twice := list(job.twice(tree)):
            yield f"wrong: it ran twice: {twice}; it said {said!r}"
        if not whole.startswith(done.stdout):
            yield f"wrong: output of a lost job: {len(done.stdout)} bytes, {done.stdout[:60]!r}"
        return
    if done.code != job.code:
        yield f"wrong: exit code {done.code}; stderr {done.stderr[-400:]!r}"
    if wrong := list(job.trouble(tree, serial)):
        yield f"wrong: not as after one run: {wrong}; exit code {done.code}; stderr {done.stderr[-400:]!r}"
    if done.stdout != whole or own != job.stderr:
        yield f"wrong: output: {len(done.stdout)} bytes for {len(whole)}, {done.stdout[:60]!r}; stderr {own[-400:]!r}"


def replace_file(path: Path, text: str) -> None:
    """Write a file of which no reader sees a part."""
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.chmod(0o644)
    temporary.rename(path)


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    os.killpg(process.pid, 9)
    process.communicate()
