"""Measure how long a launcher takes whose command is answered with a stored result."""

import os
import statistics
import subprocess
import time
from pathlib import Path

from tests.cache_proof.rounds import caching

WARM = 3
APART_S = 2.1
HUNDRED = 100


def measure(base: Path, hits: int) -> int:
    """Print the median and the 99th percentile of hits, in ms; return 1 if too few runs are hits.

    One hit in 200 is executed, to compare it.
    """
    with caching(base, f"cache-latency-{os.getpid()}") as tree:
        tree.write("x.c", "int x;\n")
        words = ("gcc", "-c", "x.c", "-o", "x.o")
        for _ in range(WARM):
            assert tree.termite(*words).code == 0
            time.sleep(APART_S)
        known = tree.jobs("cached")
        took = sorted(
            _once(tree.where.command([tree.where.termite("termite"), *words], tree.path), tree.where.env)
            for _ in range(hits)
        )
        empty = sorted(_once(tree.where.command(["/bin/true"], tree.path), tree.where.env) for _ in range(hits))
        found = tree.jobs("cached") - known
    print(f"{found} hits of {hits}; with the start of the launcher through nsenter, in ms:")
    for name, times in (("hit", took), ("true", empty)):
        print(f"{name:5} median {statistics.median(times):.2f} p99 {times[len(times) * 99 // HUNDRED]:.2f}")
    print(f"difference of the medians {statistics.median(took) - statistics.median(empty):.2f}")
    return 0 if found >= hits - 3 - hits // 50 else 1


def _once(command: list[str | bytes], env: object) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=dict(env), stdin=subprocess.DEVNULL, check=True)  # type: ignore[call-overload]
    return 1000 * (time.perf_counter() - began)
