"""Measure memory, and the cost of a local command, with a live tree of 100,000 files."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import trio

from bench import daemons
from bench.figures import Figure, Target
from bench.rounds import BenchError, Settings, repeated
from projects import COMMANDS, peak_bytes
from termite.engine.tree.master_tree import MasterTree, TreeConfig

FILES = 100_000
QUICK_FILES = 10_000
FILES_A_DIRECTORY = 100
SLOTS = 16
LIMIT_S = 1200.0
TURNS = 100
# Each entry has what a local command did, and to how many files. If it gave a file another name,
# the master searches all known files for the same inode number.
WAYS = (("written", 1), ("written", 20), ("made anew and renamed", 20), ("given another name", 1))


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory sample has the peaks of one round's new processes, and the time of their jobs."""

    fresh_mb: float  # the peak of a master that has done nothing
    master_mb: float
    mirror_mb: float
    wall_s: float


def measure_memory(settings: Settings) -> list[Figure]:
    """Measure the peak memory of master and mirror after 16 concurrent jobs have read all files."""
    tree, files = _tree(settings)
    workload = f"live tree of {files} files"
    rounds = repeated(settings, f"{SLOTS} jobs read {files} files", lambda: _memory(settings, tree, files))

    def all_of(what: Callable[[Memory], float]) -> tuple[float, ...]:
        return tuple(map(what, rounds))

    mirror = f"peak memory of a mirror process with {SLOTS} slots"
    return [
        Figure(workload, "memory of a master that has done nothing", "MB", all_of(lambda one: one.fresh_mb)),
        Figure(workload, "peak memory of the master", "MB", all_of(lambda one: one.master_mb), Target(150)),
        Figure(workload, mirror, "MB", all_of(lambda one: one.mirror_mb), Target(120)),
        Figure(workload, f"{SLOTS} jobs read all files for the first time", "s", all_of(lambda one: one.wall_s)),
    ]


def _memory(settings: Settings, tree: Path, files: int) -> Memory:
    base = settings.work / "live" / "cluster"
    shutil.rmtree(base, ignore_errors=True)
    with (
        daemons.fleet(base) as fleet,
        daemons.worker(fleet, "w", "--jobs", str(SLOTS)) as worker,
        daemons.master(fleet, tree) as master,
    ):
        master.wait_for_workers(1)
        fresh_mb = _peak_mb(master.pid)
        started = time.monotonic()
        _read_all(master, [path.name for path in _directories(tree)])
        wall_s = time.monotonic() - started
        status = master.status()
        if status["jobs"]["remote"] != SLOTS or status["tree"]["entries"] < files:
            raise BenchError(f"jobs on the worker did not read all files: {status['jobs']}, {status['tree']}")
        return Memory(fresh_mb, _peak_mb(master.pid), max(map(_peak_mb, worker.mirrors())), wall_s)


def measure_refresh(settings: Settings) -> list[Figure]:
    """Measure the time in which the master takes in the changes of a local command.

    The benchmark calls the master's own code in this process. Every directory of the tree was
    served before, and the digests of the files that are changed are in the master's cache on disk.
    A sample is the median of one round.
    """
    tree, files = _tree(settings)
    workload = f"live tree of {files} files"
    rounds = repeated(settings, "refresh", lambda: trio.run(_refresh_times, tree, _directories(tree)))
    return [
        Figure(
            workload,
            f"refresh after a local command: files {how} {count}",
            "ms",
            tuple(1000 * median(times[how, count]) for times in rounds),
            Target(5.0),
        )
        for how, count in WAYS
    ]


async def _refresh_times(tree: Path, directories: Sequence[Path]) -> dict[tuple[str, int], list[float]]:
    """Return the seconds of each refresh, by the kind of change and the number of files."""
    with _master_tree(tree) as home:
        root = os.fsencode(tree).strip(b"/")
        await home.directory(root)
        for number, directory in enumerate(directories):
            path = root + b"/" + os.fsencode(directory.name)
            _, _, children = await home.directory(path)
            for name, attr in children.items() if number < TURNS else ():
                fd, _ = await home.open_file(path + b"/" + name, attr.size, attr.mtime_ns)
                os.close(fd)
        home.drain()
        times: dict[tuple[str, int], list[float]] = {way: [] for way in WAYS}
        for turn in range(TURNS):
            directory = directories[turn % len(directories)]
            for how, count in WAYS:
                for number in range(count):
                    _do(how, directory / f"{number}.c", f"int changed_{turn}_{count};\n")
                started = time.perf_counter()
                home.drain()
                times[how, count].append(time.perf_counter() - started)
            _other_name(directory / "0.c").unlink()
            home.drain()
        return times


def _do(how: str, path: Path, text: str) -> None:
    match how:
        case "written":
            path.write_text(text)
        case "made anew and renamed":
            new = path.with_suffix(".new")
            new.write_text(text)
            new.rename(path)
        case _:
            _other_name(path).unlink(missing_ok=True)  # a killed run may have left it
            _other_name(path).hardlink_to(path)


def _other_name(path: Path) -> Path:
    return path.with_suffix(".link")


@contextlib.contextmanager
def _master_tree(tree: Path) -> Iterator[MasterTree]:
    hashes = tree.parent / "hashes" / "hashes.sqlite"
    shutil.rmtree(hashes.parent, ignore_errors=True)
    home = MasterTree(TreeConfig(writable_root=os.fsencode(tree).strip(b"/"), hash_cache=hashes))
    try:
        yield home
    finally:
        home.close()


def _tree(settings: Settings) -> tuple[Path, int]:
    """Return a tree of small sources in directories of a usual size, and the number of its files.

    The tree is made once and kept for later runs.
    """
    files = QUICK_FILES if settings.quick else FILES
    base = settings.work / "live"
    tree = base / f"tree-{files}"
    if settings.fresh or not tree.exists():
        settings.say(f"making a tree of {files} files")
        made = base / "made"
        for path in (tree, made):
            shutil.rmtree(path, ignore_errors=True)
        for number in range(files):
            directory = made / f"d{number // FILES_A_DIRECTORY:04}"
            if number % FILES_A_DIRECTORY == 0:
                directory.mkdir(parents=True)
            text = f"int f_{number}(void) {{ return {number}; }}\n" * 20
            (directory / f"{number % FILES_A_DIRECTORY}.c").write_text(text)
        made.rename(tree)
    return tree, files


def _directories(tree: Path) -> list[Path]:
    """Return the directories of the tree, without those that a master makes for itself."""
    return [path for path in sorted(tree.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def _read_all(master: daemons.Master, directories: Sequence[str]) -> None:
    processes = []
    for at in range(SLOTS):
        find = ["find", *directories[at::SLOTS], "-type", "f", "-exec", "cat", "{}", "+"]
        command = [str(COMMANDS / "termite"), "sh", "-c", '"$@" > /dev/null', "sh", *find]
        processes.append(subprocess.Popen(command, cwd=master.tree, env=master.env, stdin=subprocess.DEVNULL))
    try:
        codes = [process.wait(LIMIT_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if any(codes):
        raise BenchError(f"jobs that read the tree ended with {codes}")


def _peak_mb(pid: int) -> float:
    return peak_bytes(pid) / 2**20
