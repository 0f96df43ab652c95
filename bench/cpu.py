"""Who used how much CPU: the whole machine, what this benchmark started, one side of it, one process.

Wall time alone hides work that was moved to another process. Everything the benchmark starts, daemons and their
sandboxes too, is in a cgroup of its own, so other users of the machine are not counted as ours; and each side in one
below that, which can be stopped while another side has the machine.
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

NAME = "termite-bench-"  # of whatever is not in our own directory, followed by our process id
ENDING_S = 3.0  # a killed process is in its cgroup until the kernel has freed its memory
STOPPING_S = 0.02  # who waits in the kernel stops later, but does nothing meanwhile
_TICKS = os.sysconf("SC_CLK_TCK")


def stolen_ticks(proc_stat: str) -> int:
    """What the first line of /proc/stat says was taken by other guests of the virtual machine's host."""
    return int(proc_stat.split(maxsplit=9)[8])


def busy_ticks(proc_stat: str) -> int:
    """What the first line of /proc/stat says of work: neither idle, nor waiting for a disk, nor another machine's."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, proc_stat.split(maxsplit=8)[1:8])
    return user + nice + system + irq + softirq


def process_cpu_s(pid: int) -> float:
    """User and system time of a process, its ended threads included, its children not."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass(frozen=True, slots=True)
class Group:
    """A cgroup of version 2, and what is in it."""

    path: Path

    def cpu_s(self) -> float:
        found = re.search(r"^usage_usec (\d+)", (self.path / "cpu.stat").read_text(), re.MULTILINE)
        assert found is not None, "the kernel counts this in every cgroup"
        return int(found[1]) / 1e6

    def stop(self) -> None:
        """Nothing in it runs any more, until `go`."""
        self._freeze("1")
        deadline = time.monotonic() + STOPPING_S
        while "frozen 1" not in (self.path / "cgroup.events").read_text() and time.monotonic() < deadline:
            time.sleep(0.0002)

    def go(self) -> None:
        self._freeze("0")

    def _freeze(self, on: str) -> None:
        (self.path / "cgroup.freeze").write_text(on)


@dataclass(frozen=True, slots=True)
class Accounts:
    """Where the CPU of this benchmark is counted; `cgroup` is None where an ordinary user may not make one."""

    cgroup: Path | None

    def own_s(self) -> float:
        return math.nan if self.cgroup is None else Group(self.cgroup).cpu_s()

    def measure(self, work: Callable[[], object], after_s: float = 0.0) -> Measured:
        """Do it and say what it took. What daemons still do within `after_s` counts as CPU, but takes no time."""
        machine, own, wall = machine_s(), self.own_s(), time.monotonic()
        work()
        wall_s = time.monotonic() - wall
        time.sleep(after_s)
        return Measured(wall_s, machine_s() - machine, self.own_s() - own)

    def group(self, side: str) -> Group:
        """That of one side. LookupError where there are none."""
        if self.cgroup is None:
            raise LookupError("no cgroup of our own")
        group = Group(self.cgroup / side)
        group.path.mkdir(exist_ok=True)
        return group

    @contextlib.contextmanager
    def inside(self, side: str) -> Iterator[None]:
        """What is started meanwhile belongs to that side, with all that it starts."""
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
    """Put this process, and so all that it starts, into a cgroup of its own for a while."""
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
    """Whether something of this name is of a run that has ended. Only its process id tells."""
    pid = re.match(rf"{NAME}(\d+)", name)
    return pid is not None and not Path(f"/proc/{pid[1]}").exists()


def _remove_all(cgroup: Path) -> None:
    for side in cgroup.glob("*/"):
        _remove(side)
    _remove(cgroup)


def _remove(cgroup: Path) -> None:
    """As soon as the last process that we have ended is gone. One that does not end keeps it."""
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
    """The new one and the one before. OSError where we may not, LookupError where there are none."""
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
    """What runs that were killed have left stopped, for ever otherwise."""
    for cgroup in above.glob(f"{NAME}*/"):
        if is_orphaned(cgroup.name):
            with contextlib.suppress(OSError):  # another run was faster, or the kernel is older than 5.14
                (cgroup / "cgroup.kill").write_text("1")
            _remove_all(cgroup)


def _join(cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))


def stolen_s() -> float:
    """Of all cores since the machine started, what its host gave to others."""
    return stolen_ticks(Path("/proc/stat").read_text()) / _TICKS


def machine_s() -> float:
    """What all cores have worked since the machine started."""
    return busy_ticks(Path("/proc/stat").read_text()) / _TICKS
