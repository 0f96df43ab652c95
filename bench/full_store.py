"""Measure what a full store costs the first compile of a lease: CPU of the worker and its mirror.

    PYTHONPATH=.:tools .venv/bin/python -m bench.full_store [ROUNDS [GIGABYTES]]

Three workers take turns, each with a cache of its own, started anew for each compile:

* one whose store has the files of the compile only;
* one with GIGABYTES of other contents too, all of them verified since the machine was booted;
* one with as many contents, of which none is, as after a boot.

CPU is that of the worker and of everything that it has started, from its start to its end (rusage).
The store is filled once, which takes a minute for each gigabyte. Keep the machine idle.
"""

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

from bench import daemons
from projects import CHECKOUT, COMMANDS
from termite.engine.store.cas import Cas

FILL = "--fill"  # the first argument of the program that fills a store as its owner
SIZES = (16 << 10,) * 7 + (256 << 10,)
HOUR_NS = 3_600_000_000_000
SOURCE = '#include <stdio.h>\n#include <stdlib.h>\nint main(void) { return printf("1"); }\n'
STORES = ("small", "verified", "unverified")


def fill(root: Path, size_bytes: int, *, is_verified: bool) -> None:
    """Fill the store below `root` with random contents, without marks unless `is_verified`."""
    store = Cas(root, max_bytes=1 << 50, max_files=1 << 40)
    number = 0
    while size_bytes > 0:
        content = os.urandom(SIZES[number % len(SIZES)])
        store.put(content)
        size_bytes -= len(content)
        number += 1
    store.close()
    if not is_verified:
        for path in root.glob("??/*"):
            before_ns = path.stat().st_mtime_ns - HOUR_NS
            os.utime(path, ns=(before_ns, before_ns))


def fill_as_owner(base: Path, name: str, size_bytes: int) -> None:
    """Do as `fill` for the store of this name, as the user whose mirror has it."""
    store = find_store(base / name)
    owner = store.stat()
    command = daemons.module("full_store", FILL, str(store), str(size_bytes), name)
    env = daemons.environment(base)
    subprocess.run(command, env=env, check=True, user=owner.st_uid, group=owner.st_gid, extra_groups=[])


def find_store(cache: Path) -> Path:
    """Return the only store of a worker's cache."""
    (store,) = [path for path in (cache / "cas", *cache.glob("user-*/cas")) if path.is_dir()]
    return store


def compile_once(fleet: daemons.Fleet, tree: Path, cache: Path, number: int) -> float:
    """Compile one file on a new worker. Return the CPU of it and of its mirror in seconds."""
    words = [str(COMMANDS / "termite"), "gcc", "-c", "x.c", "-o", f"x{number}.o"]
    with daemons.master(fleet, tree) as master:
        before_s = _children_s()
        with daemons.worker(fleet, f"w{number}", "--jobs", "1", "-cache-size", "100G", cache=cache):
            master.wait_for_workers(1)
            subprocess.run(words, cwd=tree, env=master.env, check=True, timeout=120)
        spent_s = _children_s() - before_s
        if master.status()["jobs"]["remote"] != 1:
            raise SystemExit(f"the compile did not run on the worker: {master.status()['jobs']}")
    return spent_s


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the CPU of each compile, and by how much the medians differ."""
    rounds, gigabytes = map(float, (*sys.argv[1:3], *("10", "4")[len(sys.argv[1:3]) :]))
    base = CHECKOUT / "build" / "bench" / "full-store"
    shutil.rmtree(base, ignore_errors=True)
    tree = base / "tree"
    tree.mkdir(parents=True)
    (tree / "x.c").write_text(SOURCE)
    spent_ms: dict[str, list[float]] = {name: [] for name in STORES}
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        fleet = stack.enter_context(daemons.fleet(base))
        number = 0
        for name in STORES:
            cache = base / name
            compile_once(fleet, tree, cache, number := number + 1)  # the store has its files then
            if name != "small":
                fill_as_owner(base, name, int(gigabytes * 1e9))
                print(f"{name}: {sum(1 for _ in find_store(cache).glob('??/*'))} contents", flush=True)
        for turn in range(int(rounds)):
            for name in STORES[turn % 3 :] + STORES[: turn % 3]:
                if name == "unverified":  # the compile before has verified what it read
                    fill_as_owner(base, name, 0)
                spent_ms[name].append(1000 * compile_once(fleet, tree, base / name, number := number + 1))
            print(", ".join(f"{name} {spent_ms[name][-1]:.0f} ms" for name in STORES), flush=True)
    for name in STORES[1:]:
        more_ms = median(spent_ms[name]) - median(spent_ms["small"])
        print(f"a full store, {name}: {more_ms:+.0f} ms of CPU (medians of {rounds:.0f} rounds)")


if __name__ == "__main__":
    if sys.argv[1:2] == [FILL]:
        fill(Path(sys.argv[2]), int(sys.argv[3]), is_verified=sys.argv[4] == "verified")
    else:
        main()
