"""Count CPU time: of the whole machine, of this benchmark, of one side, of one process.

Wall time alone hides work that was moved to another process. The benchmark puts everything that it
starts, daemons and sandboxes included, into a cgroup of its own. The work of other users is
therefore not counted. Each side has a cgroup below that one, which can be frozen while another
side has the machine.
"""

import contextlib
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Measured

NAME = "termite-bench-"  # prefix of names outside our own directory (cgroups, namespaces); our process id follows
ENDING_S = 3.0  # a killed process is in its cgroup until the kernel has freed its memory
STOPPING_S = 0.02  # a process that waits in the kernel freezes later, but uses no CPU meanwhile
_TICKS = os.sysconf("SC_CLK_TCK")


def stolen_ticks(proc_stat: str) -> int:
    """Return the ticks that the host gave to other guests, from the first line of /proc/stat."""
    return int(proc_stat.split(maxsplit=9)[8])


def busy_ticks(proc_stat: str) -> int:
    """Return the ticks without idle, disk wait and steal, from the first line of /proc/stat."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, proc_stat.split(maxsplit=8)[1:8])
    return user + nice + system + irq + softirq


def process_cpu_s(pid: int) -> float:
    """Return the user and system time of a process: with ended threads, without children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass(frozen=True, slots=True)
class Group:
    """A group is a cgroup of version 2 with the processes in it."""

    path: Path

    def cpu_s(self) -> float:
        """Return the CPU time of all processes that are or were in the group."""
        found = re.search(r"^usage_usec (\d+)", (self.path / "cpu.stat").read_text(), re.MULTILINE)
        assert found is not None, "the kernel counts this in every cgroup"
        return int(found[1]) / 1e6

    def stop(self) -> None:
        """Freeze all processes in the group; wait STOPPING_S at most until they are frozen."""
        self._freeze("1")
        deadline = time.monotonic() + STOPPING_S
        while "frozen 1" not in (self.path / "cgroup.events").read_text() and time.monotonic() < deadline:
            time.sleep(0.0002)

    def go(self) -> None:
        """Let the processes in the group run again."""
        self._freeze("0")

    def _freeze(self, on: str) -> None:
        (self.path / "cgroup.freeze").write_text(on)


@dataclass(frozen=True, slots=True)
class Accounts:
    """Accounts count the CPU of this benchmark in its cgroup.

    `cgroup` is None if the user may not make one; then the benchmark's own CPU is NaN.
    """

    cgroup: Path | None

    def own_s(self) -> float:
        """Return the CPU time of this benchmark and its processes; NaN if it is not counted."""
        return math.nan if self.cgroup is None else Group(self.cgroup).cpu_s()

    def measure(self, work: Callable[[], object], after_s: float = 0.0) -> Measured:
        """Call `work` and return its wall time and CPU.

        The CPU includes what daemons use in the `after_s` seconds after the end; the wall time does
        not.
        """
        machine, own, wall = machine_s(), self.own_s(), time.monotonic()
        work()
        wall_s = time.monotonic() - wall
        time.sleep(after_s)
        return Measured(wall_s, machine_s() - machine, self.own_s() - own)

    def group(self, side: str) -> Group:
        """Return the cgroup of one side, made if needed. Raise LookupError if there are none."""
        if self.cgroup is None:
            raise LookupError("no cgroup of our own")
        group = Group(self.cgroup / side)
        group.path.mkdir(exist_ok=True)
        return group

    @contextlib.contextmanager
    def inside(self, side: str) -> Iterator[None]:
        """Put every process that is started within this context into the cgroup of `side`."""
        if self.cgroup is None:
            yield
            return
        _join(self.group(side).path)
        try:
            yield
        finally:
            _join(self.cgroup)


@contextlib.contextmanager
def accounts() -> Iterator[Accounts]:
    """Put this process, and so all that it starts, into a new cgroup until the context ends."""
    try:
        cgroup, before = _join_new_cgroup()
    except (OSError, LookupError):
        yield Accounts(None)
        return
    try:
        yield Accounts(cgroup)
    finally:
        _join(before)
        _remove_all(cgroup)


def is_orphaned(name: str) -> bool:
    """Return True if `name` begins with NAME and a process id, and that process has ended."""
    pid = re.match(rf"{NAME}(\d+)", name)
    return pid is not None and not Path(f"/proc/{pid[1]}").exists()


def _remove_all(cgroup: Path) -> None:
    for side in cgroup.glob("*/"):
        _remove(side)
    _remove(cgroup)


def _remove(cgroup: Path) -> None:
    """Remove a cgroup as soon as its last process is gone; give up after ENDING_S."""
    deadline = time.monotonic() + ENDING_S
    while True:
        try:
            cgroup.rmdir()
            return
        except OSError:
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)


def _join_new_cgroup() -> tuple[Path, Path]:
    """Return the new cgroup and the previous one.

    Raise OSError if the user may not make one, LookupError if no cgroup2 is mounted.
    """
    mounted = re.search(r"^\S+ (\S+) cgroup2 ", Path("/proc/mounts").read_text(), re.MULTILINE)
    ours = re.search(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    if mounted is None or ours is None:
        raise LookupError("no cgroup2")
    before = Path(mounted[1]) / ours[1]
    _end_orphans(before)
    cgroup = before / f"{NAME}{os.getpid()}"
    cgroup.mkdir()
    try:
        _join(cgroup)
    except OSError:
        cgroup.rmdir()
        raise
    return cgroup, before


def _end_orphans(above: Path) -> None:
    """Kill the processes that killed runs have left frozen: otherwise they would stay for ever."""
    for cgroup in above.glob(f"{NAME}*/"):
        if is_orphaned(cgroup.name):
            with contextlib.suppress(OSError):  # another run was faster, or the kernel is older than 5.14
                (cgroup / "cgroup.kill").write_text("1")
            _remove_all(cgroup)


def _join(cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))


def stolen_s() -> float:
    """Return the time, of all cores since the machine started, that its host gave to others."""
    return stolen_ticks(Path("/proc/stat").read_text()) / _TICKS


def machine_s() -> float:
    """Return the working time of all cores since the machine started."""
    return busy_ticks(Path("/proc/stat").read_text()) / _TICKS
