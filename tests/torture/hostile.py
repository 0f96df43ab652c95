"""Hostile jobs, masters, workers and strangers whose deeds come from the seed.

The attacks are tests of `tests/hostile`. A round is a run of pytest, as `make test` runs them, with
another seed.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.places import CHECKOUT
from tests.torture.one_round import Result

HOSTILE = "hostile"
ALL = "hostile:all"
WORDS = {
    HOSTILE: "a job, a master, a worker and strangers that send and do anything: all attacks that take a seed",
    ALL: "every test of tests/hostile",
}
SEEDED = ("tests/hostile/test_random_attacks.py", "tests/hostile/test_hostile_worker.py")
_TESTS = {HOSTILE: SEEDED, ALL: ("tests/hostile",)}
_LIMIT_S = {HOSTILE: 300.0, ALL: 1500.0}


def attack(base: Path, name: str, seed: int) -> Result:
    """Run the attacks of `name` with a seed, which decides whatever chance decides in them."""
    result = Result(name, seed)
    before = time.monotonic()
    kept = base / f"failed-{name.replace(':', '-')}-{seed}"
    kept.mkdir()
    log = kept / "pytest.log"
    command = [sys.executable, "-m", "pytest", "-q", "-rf", f"--basetemp={kept}/tmp", *_TESTS[name]]
    environment = {**os.environ, "HOSTILE_SEED": str(seed)}
    with log.open("wb") as output:
        try:
            code = subprocess.run(
                command, cwd=CHECKOUT, env=environment, stdout=output, stderr=output, timeout=_LIMIT_S[name]
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
            result.problems = [f"hang: the attacks have not ended after {_LIMIT_S[name]:g} s"]
    said = log.read_text(errors="replace").splitlines()
    broken = [line for line in said if line.startswith(("BROKEN", "FAILED", "ERROR"))]
    if code > 0:
        result.problems = [f"wrong: {line}" for line in broken] or [f"wrong: pytest ends with {code}, see {log}"]
    result.injected = said[-1:]
    result.seconds = time.monotonic() - before
    if result.problems:
        result.kept = kept
    else:
        shutil.rmtree(kept)
    return result
