"""Check how much room this machine has, and its clock.

The room is descriptors, processes, disk, memory and watches. The `judge_*` functions judge figures
that others have read.
"""

import ctypes
import os
import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from termite.cli.daemons import default_tmpdir
from termite.cli.doctor.finding import Finding, Level, failure_of
from termite.cli.doctor.machine_checks import MACHINE
from termite.cli.places import default_cache
from termite.engine.errors import UserError
from termite.engine.host.machine import usable_cores
from termite.engine.host.meminfo import read_memory

MIB = 1024**2
FILES_FOR_DAEMON = 128  # of one process, before the first job
FILES_FOR_JOB = 24
PROCESSES_FOR_DAEMON = 64
PROCESSES_FOR_JOB = 16
LEAST_DISK_BYTES = (64 * MIB, 1024 * MIB)  # free: with less it is a failure, or a warning
LEAST_DISK_FILES = (1000, 10_000)
LEAST_MEMORY_BYTES = (128 * MIB, 512 * MIB)
LEAST_WATCHES = 8192  # directories of a small project and of the compilers
LEAST_INSTANCES = 16  # of inotify; a master needs two, and desktops take many
OLDEST_TIME_S = 1_704_067_200  # 2024-01-01: before, the certificates of no release were valid
SIZE_LIMIT_S = 1.0  # for counting a store
STA_UNSYNC = 0x40  # adjtimex(2)


def check_room() -> Iterator[Finding]:
    """Yield the findings about the limits and the disks of this machine, and about its clock."""
    slots = 2 * usable_cores()
    yield judge_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1], slots)
    yield judge_processes(resource.getrlimit(resource.RLIMIT_NPROC)[0], _own_tasks(), slots)
    yield judge_memory(read_memory("MemAvailable"), read_memory("MemTotal"))
    yield from _disk_checks()
    yield from _watch_checks()
    yield judge_clock(time.time(), _is_clock_kept())


def judge_files(limit: int, slots: int) -> Finding:
    """Judge the hard limit of open files, which daemons use. -1 means that there is none."""
    needed = FILES_FOR_DAEMON + FILES_FOR_JOB * slots
    level = _level_below(limit, FILES_FOR_DAEMON, needed)
    text = f"a process may open {_count(limit)} files"
    if level is not Level.OK:
        text += f", but a daemon with {slots} jobs needs {needed}"
    mend = "as root: prlimit --pid $$ --nofile=65536 in the shell that starts termite (LimitNOFILE=65536 in a unit)"
    return Finding(MACHINE, "nofile", level, text, mend)


def judge_processes(limit: int, used: int, slots: int) -> Finding:
    """Judge the limit of processes and threads of this user, of which `used` run. -1: no limit."""
    free = limit if limit < 0 else max(limit - used, 0)
    level = _level_below(free, PROCESSES_FOR_DAEMON, PROCESSES_FOR_DAEMON + PROCESSES_FOR_JOB * slots)
    text = f"this user may start {_count(free)} more processes (limit {_count(limit)})"
    mend = "as root: prlimit --pid $$ --nproc=32768 in the shell that starts termite (TasksMax=, LimitNPROC= in a unit)"
    return Finding(MACHINE, "nproc", level, text, mend)


def judge_memory(available_bytes: int, total_bytes: int) -> Finding:
    """Judge the memory that is available. 0 means unknown, which is well."""
    level = _level_below(available_bytes or -1, *LEAST_MEMORY_BYTES)
    text = f"{_mib(available_bytes)} of {_mib(total_bytes)} of memory are available"
    return Finding(MACHINE, "memory", level, text, "end programs, or: termite-worker -jobs 1 -scratch disk")


def judge_disk(about: str, place: Path, free_bytes: int, free_files: int, total_files: int, mend: str) -> Finding:
    """Judge the file system of a directory. If it does not count inodes, `total_files` is 0."""
    by_bytes = _level_below(free_bytes, *LEAST_DISK_BYTES)
    by_files = _level_below(free_files, *LEAST_DISK_FILES) if total_files else Level.OK
    text = f"{place}: {_mib(free_bytes)} free"
    if total_files:
        text += f", {free_files} inodes free"
    if by_files is not Level.OK and (by_bytes is Level.OK or by_files is Level.FAILURE):
        return Finding(MACHINE, f"{about}-inodes", by_files, text, mend)
    return Finding(MACHINE, about, by_bytes, text, mend)


def judge_watches(watches: dict[str, int]) -> Finding:
    """Judge the limits of watched directories, by the names of the sysctls."""
    name = min(watches, key=lambda name: watches[name])
    level = Level.OK if watches[name] >= LEAST_WATCHES else Level.WARNING
    text = f"{watches[name]} directories can be watched ({name})"
    return Finding(MACHINE, "watches", level, text, f"as root: sysctl -w {name}=524288")


def judge_instances(limits: dict[str, int], *, is_possible: bool) -> Finding:
    """Judge the limits of instances of inotify. `is_possible`: one could be made just now."""
    name = min(limits, key=lambda name: limits[name])
    level = Level.FAILURE
    if is_possible:
        level = Level.OK if limits[name] >= LEAST_INSTANCES else Level.WARNING
    text = f"{limits[name]} instances of inotify are allowed ({name})"
    text += "" if is_possible else ", and none is left"
    return Finding(MACHINE, "instances", level, text, f"as root: sysctl -w {name}=1024")


def judge_clock(now_s: float, is_kept: bool | None) -> Finding:
    """Judge the clock. `is_kept` says whether a time service keeps it; None is unknown."""
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    if now_s < OLDEST_TIME_S:
        return Finding(MACHINE, "clock", Level.FAILURE, f"it is {shown} here", "as root: date -s 'THE PRESENT TIME'")
    kept = {True: ", kept by a time service", False: ", kept by no time service", None: ""}[is_kept]
    return Finding(MACHINE, "clock", Level.OK, f"it is {shown} here{kept}")


def _disk_checks() -> Iterator[Finding]:
    try:
        cache = default_cache()
    except UserError as error:
        yield failure_of(MACHINE, "cache", error)
    else:
        mend = f"rm -rf {cache}/cas while no worker runs, or termite-worker -cachedir on another disk"
        finding = _disk_check("cache", cache, mend)
        stored = _stored_text(cache)
        yield Finding(finding.area, finding.about, finding.level, finding.text + stored, finding.mend)
    tmpdir = default_tmpdir()
    yield _disk_check("scratch", tmpdir, f"remove files from {tmpdir}, or termite-worker -tmpdir on another disk")


def _disk_check(about: str, place: Path, mend: str) -> Finding:
    existing = next(path for path in (place, *place.parents) if path.exists())
    try:
        disk = os.statvfs(existing)
    except OSError as error:
        return Finding(MACHINE, about, Level.FAILURE, f"{existing}: {error.strerror}", mend)
    return judge_disk(about, place, disk.f_bavail * disk.f_frsize, disk.f_favail, disk.f_files, mend)


def _stored_text(cache: Path) -> str:
    """Return how large the stores of a worker in `cache` are, counted for SIZE_LIMIT_S at most."""
    until_s, size_bytes, files = time.monotonic() + SIZE_LIMIT_S, 0, 0
    for directory, _, names in os.walk(cache):
        for name in names:
            with suppress(OSError):  # it was removed meanwhile
                size_bytes += os.lstat(os.path.join(directory, name)).st_blocks * 512
                files += 1
        if time.monotonic() > until_s:
            return f"; more than {_mib(size_bytes)} in {files} files are kept"
    return f"; {_mib(size_bytes)} in {files} files are kept"


def _watch_checks() -> Iterator[Finding]:
    watches = _sysctls("fs.inotify.max_user_watches", "user.max_inotify_watches")
    instances = _sysctls("fs.inotify.max_user_instances", "user.max_inotify_instances")
    if watches:
        yield judge_watches(watches)
    if instances:
        yield judge_instances(instances, is_possible=_can_watch())


def _sysctls(*names: str) -> dict[str, int]:
    found = {}
    for name in names:
        with suppress(OSError, ValueError):
            found[name] = int(Path("/proc/sys", name.replace(".", "/")).read_text())
    return found


def _can_watch() -> bool:
    descriptor = int(ctypes.CDLL(None).inotify_init1(os.O_CLOEXEC))
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0


def _own_tasks() -> int:
    """Return the number of processes and threads of this user."""
    tasks = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):  # the process has ended
                if entry.stat().st_uid == os.geteuid():
                    tasks += len(os.listdir(f"/proc/{entry.name}/task"))
    return tasks


def _is_clock_kept() -> bool | None:
    """Return whether a time service keeps the kernel's clock, or None if that is unknown."""
    values = ctypes.create_string_buffer(512)  # struct timex: modes, offset, freq, maxerror, esterror, status, ...
    if ctypes.CDLL(None).adjtimex(values) < 0:
        return None
    long_bytes = ctypes.sizeof(ctypes.c_long)
    status = int.from_bytes(values.raw[5 * long_bytes : 5 * long_bytes + 4], "little")
    return not status & STA_UNSYNC


def _level_below(number: int, least: int, enough: int) -> Level:
    """Return the level of a free amount; a negative one has no limit."""
    if number < 0 or number >= enough:
        return Level.OK
    return Level.FAILURE if number < least else Level.WARNING


def _count(limit: int) -> str:
    return "any number of" if limit < 0 else str(limit)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**3:.1f} GiB" if size_bytes >= 1024**3 else f"{size_bytes / MIB:.0f} MiB"
