"""Find the processes of a round, and tell what each one is.

A process belongs to a round if its environment has the round's mark, if its command line names the
round's directory, or if it descends from such a process. Sandboxes have an empty environment, and
their parent may be dead, so that one sign alone is not enough.
"""

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

PROC = Path("/proc")


class Kind(Enum):
    """A kind says what a process does in termite; the value is the name in faults."""

    COORDINATOR = "coordinator"
    WORKER = "worker"
    MASTER = "master"
    MIRROR = "mirror"
    ENTER = "enter"  # makes the mirror's namespaces, and waits for its end
    SERVE = "serve"  # forks the sandboxes of a mirror
    WAITING = "waiting"  # a sandbox without a job
    PID1 = "pid1"  # a sandbox with a job
    COMMAND = "command"
    LAUNCHER = "launcher"
    TOOL = "tool"  # make, ninja or cmake
    OTHER = "other"


_DAEMONS = {
    b"termite-coordinator": Kind.COORDINATOR,
    b"termite-worker": Kind.WORKER,
    b"termite-master": Kind.MASTER,
    b"termite.fuse.mirror": Kind.MIRROR,
}
_TOOLS = {b"make", b"gmake", b"ninja", b"cmake"}


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc shows it. `state` is one letter, such as T for a stopped one."""

    pid: int
    parent: int
    state: str
    argv: tuple[bytes, ...]
    is_marked: bool

    @property
    def program(self) -> bytes:
        return os.path.basename(self.argv[0]) if self.argv else b""

    @property
    def is_server(self) -> bool:
        return self.program == b"termite-sandbox" and self.argv[1:2] == (b"serve",)

    def __str__(self) -> str:
        return f"{self.pid} {self.state} {b' '.join(self.argv)[:160].decode(errors='replace')}"


def read_processes(mark: str, base: Path) -> dict[int, Process]:
    """Return the processes of the round with this mark and directory, by pid.

    This process is never one of them.
    """
    everything = {
        found.pid: found for name in os.listdir(PROC) if name.isdigit() and (found := _read(name, mark, base))
    }
    ours = {pid for pid, found in everything.items() if found.is_marked}
    children: dict[int, list[int]] = {}
    for pid, found in everything.items():
        children.setdefault(found.parent, []).append(pid)
    rest = list(ours)
    while rest:
        for child in children.get(rest.pop(), ()):
            if child not in ours:
                ours.add(child)
                rest.append(child)
    return {pid: everything[pid] for pid in sorted(ours - {os.getpid()})}


def _read(name: str, mark: str, base: Path) -> Process | None:
    directory = PROC / name
    try:
        environment = (directory / "environ").read_bytes()
        argv = (directory / "cmdline").read_bytes()
        fields = (directory / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None  # it has ended, or belongs to somebody else
    is_marked = f"E2E_MARK={mark}".encode() in environment.split(b"\0") or os.fsencode(base) + b"/" in argv
    is_marked = is_marked and fields[0] != "Z"
    return Process(int(name), int(fields[1]), fields[0], tuple(argv.split(b"\0")[:-1]), is_marked)


def kinds_of(processes: dict[int, Process]) -> dict[Kind, list[int]]:
    """Return the pids of each kind, in ascending order."""
    found: dict[Kind, list[int]] = {}
    parents = {process.parent for process in processes.values()}
    for pid, process in processes.items():
        found.setdefault(_kind(process, processes, pid in parents), []).append(pid)
    return found


def _kind(process: Process, processes: dict[int, Process], is_parent: bool) -> Kind:
    parent = processes.get(process.parent)
    if process.is_server:
        if parent is None or not parent.is_server:
            return Kind.SERVE
        grandparent = processes.get(parent.parent)
        if grandparent is not None and grandparent.is_server:
            return Kind.OTHER  # forked by pid 1 of a job, and has not executed the command yet
        return Kind.PID1 if is_parent else Kind.WAITING
    if process.program == b"termite-sandbox":
        return Kind.ENTER if process.argv[1:2] == (b"enter",) else Kind.OTHER
    if b"python" in process.program:
        words = {os.path.basename(word) for word in process.argv[1:4]}
        return next((kind for word, kind in _DAEMONS.items() if word in words), Kind.OTHER)
    if process.program in (b"termite", b"termite-shell"):
        return Kind.LAUNCHER
    if parent is not None and parent.is_server:
        return Kind.COMMAND
    return Kind.TOOL if process.program in _TOOLS else Kind.OTHER


def waiting_in(pid: int) -> str:
    """Return the kernel function that a process waits in, or "?"."""
    try:
        return (PROC / str(pid) / "wchan").read_text() or "?"
    except OSError:
        return "?"
