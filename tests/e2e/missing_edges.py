"""Build with make and ninja from rules that do not name all inputs, and see what becomes of it.

    python -m tests.e2e.missing_edges [BUILDS [FIRST_SEED]]

A seed decides everything of a build: the tool, the number of jobs at once, the order of the
targets, and how long each command takes. The last line counts the missing edges of all builds:

* in order: the input was there when its command was started;
* mended: the command failed, and passed when it ran again;
* too early: the command had failed before its input was there, and the build says so.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.cluster import Tree, cluster, new_tree
from tests.e2e.places import IS_ROOT, Outcome, place

# How a command uses its input.
KINDS = ("read", "below", "list", "test", "stale", "run", "link", "compile", "local")
RULES = '[{"Regexp": "gen local", "Local": true}]'  # a command of this machine makes one of the inputs
JOBS = (4, 6, 8, 12, 16, 24, 50)
MOST_JOBS = max(JOBS)
TRACED = ("-trace", "exact")
TICK_S = 0.01  # by which the time of a file may be too early
LINE = "{output} failed, then passed when {input} was there: a dependency is missing"

MAKE_INPUT = """#!/bin/sh
# gen KIND INPUT WORD SECONDS STAMP
sleep "$4"
mkdir -p "${2%/*}"
case $1 in
link) ln -s target "$2" ;;
run) printf '#!/bin/sh\\necho %s\\n' "$3" > "$2"; chmod 755 "$2" ;;
compile) echo "int $3;" > "$2" ;;
*) echo "$3" > "$2" ;;
esac
: > "$5"
"""
USE_INPUT = """#!/bin/sh
# use KIND INPUT WORD BEFORE AFTER OUTPUT
used() {
    case $1 in
    list) cat "${2%/*}"/*.part ;;
    test) [ -f "$2" ] && echo "$3" ;;
    stale) grep "$3" "$2" ;;
    run) "./$2" ;;
    compile) gcc -include "$2" -c empty.c -o "$4.tmp" ;;
    *) cat "$2" ;;
    esac
}
sleep "$4"
echo ran >> "$6.runs"
if used "$1" "$2" "$3" "$6" > "$6.out" 2> "$6.err"; then
    [ "$1" = compile ] || mv "$6.out" "$6.tmp"
    rm -f "$6.out" "$6.err"
    mv "$6.tmp" "$6"
    exit 0
fi
rm -f "$6.out" "$6.err" "$6.tmp"
sleep "$5"
echo "$6 needs $2 at $(date +%s.%N)" >&2
exit 1
"""


@dataclass(frozen=True, slots=True)
class Edge:
    """A command with one input, which another command makes. The rules may not name the input."""

    number: int
    kind: str
    takes_s: tuple[float, float, float]  # the maker of the input; the user, before the use and after a failure
    is_named: bool = False
    is_made: bool = True

    @property
    def input(self) -> str:
        suffix = ".part" if self.kind == "list" else ".h"
        return f"in{self.number}/g{suffix}" if self.kind in ("below", "list") else f"in/g{self.number}{suffix}"

    @property
    def output(self) -> str:
        return f"x{self.number}.o"

    @property
    def stamp(self) -> str:
        return f"g{self.number}.stamp"

    @property
    def word(self) -> str:
        return f"word{self.number}"

    @property
    def making(self) -> str:
        return f"./gen {self.kind} {self.input} {self.word} {self.takes_s[0]:.2f} {self.stamp}"

    @property
    def using(self) -> str:
        before, after = self.takes_s[1:]
        return f"./use {self.kind} {self.input} {self.word} {before:.2f} {after:.2f} {self.output}"


@dataclass(slots=True)
class Counts:
    """The numbers of missing edges by what became of them, and the problems of all builds."""

    in_order: int = 0
    mended: int = 0
    too_early: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, other: "Counts") -> None:
        self.in_order += other.in_order
        self.mended += other.mended
        self.too_early += other.too_early
        self.wrong += other.wrong

    def __str__(self) -> str:
        edges = self.in_order + self.mended + self.too_early
        return (
            f"{edges} missing edges: {self.in_order} in order, {self.mended} mended, "
            f"{self.too_early} too early, {len(self.wrong)} WRONG"
        )


class SeededBuild:
    """A build in a directory of a tree whose jobs are traced."""

    def __init__(self, tree: Tree, seed: int, most_jobs: int = MOST_JOBS) -> None:
        rng = random.Random(seed)
        self.tree = tree.subtree(f"seed{seed}")
        self.tool = rng.choice(("make", "ninja"))
        self.jobs = rng.choice([jobs for jobs in JOBS if jobs <= most_jobs])
        kinds = rng.sample(KINDS, len(KINDS))
        self.missing = [Edge(number, kind, _times(rng)) for number, kind in enumerate(kinds)]
        self.named = Edge(len(kinds), "read", _times(rng), is_named=True)
        # It fails rightly, however often others change files.
        self.hopeless = Edge(len(kinds) + 1, "read", _times(rng), is_made=False)
        self.edges = [*self.missing, self.named, self.hopeless]
        targets = [edge.output for edge in self.edges] + [edge.stamp for edge in self.edges if edge.is_made]
        self.targets = rng.sample(targets, len(targets))
        self.name = f"seed {seed}: {self.tool} -j{self.jobs}"

    def run(self) -> Counts:
        """Build once with termite, judge it, and end the build with the plain tool."""
        self._write()
        built = self._build(self.tree.where.termite(f"termite-{self.tool}"))
        listed = self.tree.ctl("jobs", "--json")
        jobs = {job["text"]: job for job in map(json.loads, listed.stdout.splitlines())}
        counts = Counts()
        for edge in self.edges:
            self._judge(edge, jobs, built, counts)
        if (built.stdout + built.stderr).count(b" needs ") != counts.too_early + 1:
            counts.wrong.append(f"{self.name}: something of a run that does not count was shown: {built}")
        self.tree.write(self.hopeless.input, f"{self.hopeless.word}\n")
        again = self._build(self.tool)
        if again.code:
            counts.wrong.append(f"{self.name}: the plain tool cannot end the build: {again}")
        counts.wrong += [f"{self.name}: {edge} has another content" for edge in self.edges if not self._is_right(edge)]
        return counts

    def _build(self, tool: str) -> Outcome:
        words = ["-k0"] if self.tool == "ninja" else ["-k", "-O"]  # neither shows output before the end of a command
        return self.tree.where.run([tool, f"-j{self.jobs}", *words], self.tree.path)

    def _write(self) -> None:
        for edge in self.edges:
            self.tree.mkdir("in")
            if edge.kind == "list":
                self.tree.mkdir(os.path.dirname(edge.input))
            if edge.kind == "stale":
                self.tree.write(edge.input, "old\n")
            if edge.kind == "link":
                self.tree.write("in/target", f"{edge.word}\n")
        self.tree.write("gen", MAKE_INPUT, 0o755)
        self.tree.write("use", USE_INPUT, 0o755)
        self.tree.write("empty.c", "")
        if self.tool == "make":
            self.tree.write("Makefile", self._makefile())
        else:
            self.tree.write("build.ninja", self._ninja_file())

    def _rules(self) -> list[tuple[str, str, str]]:
        """Return each target, its named input or "", and its command."""
        rules = [(edge.output, edge.stamp if edge.is_named else "", edge.using) for edge in self.edges]
        return rules + [(edge.stamp, "", edge.making) for edge in self.edges if edge.is_made]

    def _makefile(self) -> str:
        rules = [f"{target}: {needed}\n\t{command}\n" for target, needed, command in self._rules()]
        return "\n".join([".DELETE_ON_ERROR:", f"all: {' '.join(self.targets)}", *rules])

    def _ninja_file(self) -> str:
        rules = {
            target: f"build {target}: run {needed}\n  cmd = {command}" for target, needed, command in self._rules()
        }
        return "\n".join(["rule run", "  command = $cmd", *(rules[target] for target in self.targets), ""])

    def _judge(self, edge: Edge, jobs: dict[str, Any], built: Outcome, counts: Counts) -> None:
        job = jobs[edge.using]
        reasons = [attempt["reason"] for attempt in job["attempts"]]
        problems = []
        if job["where"] != "worker" or job["trace_gaps"] or not job["trace_paths"]:
            problems.append("it was not traced")
        if (self.tree.path / f"{edge.output}.runs").read_text() != "ran\n":
            problems.append("a run that does not count has left something")
        if job["exit_code"] == 0:
            problems += [] if self._is_right(edge) else ["another content"]
            within = self.tree.path.name
            maker = "" if edge.kind == "local" else f" (made by job {jobs[edge.making]['id']})"
            line = LINE.format(output=f"{within}/{edge.output}", input=f"{within}/{edge.input}{maker}")
            problems += [] if (line.encode() in built.stderr) == bool(reasons) else ["the summary lacks a line"]
        if edge.is_named or not edge.is_made:
            problems += ["it ran again for nothing"] if reasons else []
        elif job["exit_code"] == 0 and not reasons:
            counts.in_order += 1
        elif job["exit_code"] == 0:
            counts.mended += 1
            problems += [] if reasons == ["input-changed"] else ["it ran again for another reason"]
        else:
            counts.too_early += 1
            there_s, failed_s = _there_s(self.tree.path / edge.input), float(job["output"].split()[-1])
            problems += ["it ran again and failed"] if reasons else []
            problems += ["it did not run again"] if there_s + TICK_S < failed_s else []
        counts.wrong += [f"{self.name}: {edge}: {problem}: {job}" for problem in problems]

    def _is_right(self, edge: Edge) -> bool:
        content = (self.tree.path / edge.output).read_bytes()
        return edge.word.encode() in content if edge.kind == "compile" else content == f"{edge.word}\n".encode()


def _times(rng: random.Random) -> tuple[float, float, float]:
    return rng.uniform(0, 0.4), rng.uniform(0, 0.2), rng.uniform(0, 0.4)


def _there_s(path: Path) -> float:
    """Return the time since which a file has its name, in seconds since the epoch."""
    return max(path.lstat().st_ctime, path.parent.stat().st_ctime if path.parent.name != "in" else 0.0)


def main() -> int:
    """Run the builds, and print a line for each with problems, and the counts."""
    builds, first = (*map(int, sys.argv[1:]), 100, 0)[:2] if len(sys.argv) != 2 else (int(sys.argv[1]), 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.umask(0o022)
    whole = Counts()
    base = Path(tempfile.mkdtemp(prefix="termite-edges-", dir="/home" if IS_ROOT else Path.home()))
    base.chmod(0o755)
    try:
        with place("ordinary", base / "place", f"edges-{os.getpid()}") as where:
            tree = new_tree(where)
            with cluster(tree, [where], jobs=MOST_JOBS, master_flags=TRACED) as running:
                tree.write(".termite-localrc", RULES)
                for seed in range(first, first + builds):
                    build = SeededBuild(running.tree, seed)
                    counts = build.run()
                    whole.add(counts)
                    print(f"{build.name}: {counts}", *counts.wrong, sep="\n    ", flush=True)
    finally:
        shutil.rmtree(base)
    print(f"{builds} builds, {whole}")
    return 1 if whole.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
