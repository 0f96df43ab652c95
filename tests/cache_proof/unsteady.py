"""Commands whose results differ each time: none may be answered with that of another run."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cache_proof.rounds import Result, jobs_of
from tests.cache_proof.twin import remove_tree
from tests.e2e.cluster import Tree
from tests.e2e.waiting import wait_until

NAME = "unsteady"
APART_S = 2.1  # so that two runs count as a proof
FRESH = "PROOF_FRESH"  # another text of a variable is another command
RACE = "for i in 1 2 3 4 5 6 7 8; do (echo $i >> out/o) & done; wait"
THREADS = """
import random, threading, time
def add(n):
    time.sleep(random.random() / 100)
    open("out/o", "a").write(f"{n}\\n")
threads = [threading.Thread(target=add, args=(n,)) for n in range(12)]
[thread.start() for thread in threads]
"""
COMMANDS = {
    "time": "python3 -c 'import time; print(time.time())' > out/o",
    "second": "printf '%(%s)T\\n' -1 > out/o",
    "date": "date +%N > out/o",
    "file time": "touch out/t; stat -c %y out/t > out/o; rm out/t",
    "file time in make": "echo x > out/t; find out/t -printf '%T@\\n' > out/o; rm out/t",
    "clock in a program": "./clock > out/o",
    "pid": "echo $$ $BASHPID > out/o",
    "parent": "echo $PPID > out/o",
    "proc": "cat /proc/self/stat > out/o",
    "uptime": "cat /proc/uptime > out/o",
    "uuid": "cat /proc/sys/kernel/random/uuid > out/o",
    "loadavg": "cat /proc/loadavg /proc/meminfo > out/o",
    "random": "head -c 8 /dev/urandom | od > out/o",
    "RANDOM": "echo $RANDOM$RANDOM > out/o",
    "getrandom": "python3 -c 'import os; print(os.urandom(8))' > out/o",
    "hash order": "python3 -c 'print(list({str(n) for n in range(50)}))' > out/o",
    "perl's hash order": "perl -e 'my %h = map { $_ => 1 } 1..50; print join(\" \", keys %h)' > out/o",
    "address": "python3 -c 'print(id(object()))' > out/o",
    "stack": "cat /proc/self/maps > out/o",
    "temporary name": "t=$(mktemp); echo $t > out/o; rm $t",
    "temporary directory": "t=$(mktemp -d out/XXXXXX); echo $t > out/o; rmdir $t",
    "inode": "echo > out/t; stat -c %i out/t > out/o; rm out/t",
    "uid": "id > out/o",
    "host": "uname -a > out/o; cat /proc/sys/kernel/hostname >> out/o",
    "processors": "nproc > out/o",
    "directory order": "ls -U many > out/o; find many > out/p",
    "race": RACE,
    "threads": f"python3 -c '{THREADS}'",
    "archive with times": "echo > out/t; ar rcU out/o out/t; rm out/t",
    "gzip with time": "echo > out/t; gzip -k out/t; mv out/t.gz out/o; rm out/t",
    "__TIME__": "gcc -c clock.c -o out/o",
    "stdout": "python3 -c 'import time; print(time.time())'",
    "stderr": "python3 -c 'import sys, os; print(os.urandom(4), file=sys.stderr)'",
    "mode": 'python3 -c \'import os, random; open("out/o", "w"); os.chmod("out/o", random.randrange(0o400, 0o777))\'',
    "which file": "echo > out/$RANDOM",
    "time of a file": "touch -d @$RANDOM out/o",
}
CLOCK = """#include <stdio.h>
#include <time.h>
int main(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return printf("%s %ld\\n", __TIME__, now.tv_nsec) < 0;
}
"""


class Unsteady:
    """The directory in which the commands run, one after the other."""

    def __init__(self, tree: Tree, commands: Mapping[str, str] = COMMANDS) -> None:
        self._commands = commands
        self._tree = tree.subtree(NAME)
        self._number = 0
        self._runs = 0
        self._last_s = 0.0
        for n in range(40):
            self._tree.write(f"many/file{n * 7919 % 40}", "")
        self._tree.write("clock.c", CLOCK)
        assert self._tree.plain("gcc", "-o", "clock", "clock.c").code == 0

    def run(self) -> Result:
        """Run all commands once. A result of the cache must be that of a run on the worker."""
        self._number += 1
        began = time.monotonic()
        time.sleep(max(self._last_s + APART_S - began, 0.0))
        result = Result(NAME, self._number, [])
        result.jobs = len(self._commands)
        known = self._tree.jobs("cached")
        ours = {name: self._run(command) for name, command in self._commands.items()}
        result.hits = self._tree.jobs("cached") - known
        for name, job in zip(self._commands, self._latest_jobs() if result.hits else (), strict=False):
            if job["where"] == "cache":
                result.words.append(name)
                if (right := self._run(self._commands[name], fresh=f"{self._number}")) != ours[name]:
                    result.problems.append(f"{name}: {ours[name]!r}, executed {right!r}")
        if len(result.words) != result.hits:
            result.problems.append(f"{result.hits} hits, but their records say {result.words}")
        self._last_s = time.monotonic()
        result.seconds = self._last_s - began
        return result

    def _latest_jobs(self) -> list[dict[str, Any]]:
        """Return the records of the latest run of all commands, in their order."""

        def records() -> list[dict[str, Any]]:
            return [job for job in jobs_of(self._tree, "--all") if job["cwd"] == str(self._tree.path)]

        # They are written a moment after the launchers have ended.
        wait_until(lambda: len(records()) == self._runs, "all jobs are recorded", lambda: str(len(records())))
        return sorted(records(), key=lambda job: int(job["id"]))[-len(self._commands) :]

    def _run(self, command: str, *, fresh: str = "") -> object:
        """Return all that a command has left and said. `fresh` lets it be executed anyway."""
        out = self._tree.path / "out"
        remove_tree(out)
        self._tree.mkdir("out")
        self._runs += 1
        done = self._tree.termite("bash", "-c", command, env={FRESH: fresh} if fresh else {})
        return done, sorted(map(_look, out.iterdir()))


def _look(path: Path) -> tuple[str, int, bytes]:
    return path.name, path.stat().st_mode, path.read_bytes()
