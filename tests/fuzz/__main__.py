"""Build the fuzz targets and run each one for some CPU time.

    python -m tests.fuzz [--seconds N] [--target NAME]

A line a target says how many inputs it ran, how many edges of the code they reach, the CPU time,
and whether there is a finding. After a finding, it prints the command that replays it. New inputs
that reach more code are kept in build/fuzz/corpus/TARGET. The exit code is 1 if there is a finding.

Without clang and its libFuzzer nothing is run. The line says which packages are missing, and the
exit code is 0, or 1 with --needed.
"""

import argparse
import functools
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "tests/fuzz"
BUILD = ROOT / "build/fuzz"
PROGRAMS = BUILD / "tests/fuzz"
PACKAGES = "clang libclang-rt-dev"
TARGETS = sorted(path.stem for path in (SOURCES / "targets").glob("*.c"))
SANITIZERS = "-fsanitize=fuzzer,address,undefined"
# Orders are at most 64 KiB, but small inputs reach the same code sooner.
LIBFUZZER = ["-max_len=4096", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"]
ONE_INPUT = "int LLVMFuzzerTestOneInput(const char *bytes, unsigned long size) { return 0; }"
LOG_BYTES = 1024 * 1024  # of the end of a log, which has all figures
AT_ONCE = os.cpu_count() or 1  # targets that run at the same time; each has one thread
_EXECUTIONS = re.compile(r"^stat::number_of_executed_units: (\d+)", re.MULTILINE)
_COVERAGE = re.compile(r"\bcov: (\d+)")


@dataclass(frozen=True, slots=True)
class Run:
    """The run of a target. `finding` is the file with the input of a finding, or None."""

    target: str
    executions: int
    coverage: int
    cpu_s: float
    exit_code: int
    finding: Path | None


def main() -> int:
    """Run what the command line asks for, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="fuzz the native programs' inputs")
    parser.add_argument("--seconds", type=float, default=600.0, help="CPU seconds for each target")
    parser.add_argument("--target", choices=TARGETS, help="only this one")
    parser.add_argument("--needed", action="store_true", help="fail if clang is not installed")
    words = parser.parse_args()
    if missing := why_not():
        print(f"fuzz: skipped: {missing}; apt-get install --no-install-recommends {PACKAGES}")
        return int(words.needed)
    build()
    targets = [words.target] if words.target else TARGETS
    is_found = False
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for run in pool.map(lambda target: run_target(target, words.seconds), targets):
            print(describe(run), flush=True)
            is_found |= bool(run.exit_code)
    return int(is_found)


@functools.cache
def why_not() -> str:
    """Return why the targets cannot be built, or "" if they can."""
    if not shutil.which("clang"):
        return "clang is not installed"
    compiler = ["clang", SANITIZERS, "-x", "c", "-", "-o", os.devnull]
    if subprocess.run(compiler, input=ONE_INPUT, text=True, capture_output=True).returncode:
        return "clang has no libFuzzer"
    return ""


def build() -> None:
    """Build all targets. Raise CalledProcessError if that fails."""
    cmake = str(ROOT / ".venv/bin/cmake")
    options = ["-DTERMITE_FUZZ=ON", "-DCMAKE_C_COMPILER=clang", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    subprocess.run([cmake, "-S", str(ROOT), "-B", str(BUILD), *options], check=True, stdout=subprocess.DEVNULL)
    build_all = [cmake, "--build", str(BUILD), "--target", "fuzzers", "--parallel", str(AT_ONCE)]
    subprocess.run(build_all, check=True, stdout=subprocess.DEVNULL)


def run_target(target: str, seconds: float) -> Run:
    """Run one target until it has used `seconds` of CPU time or has a finding."""
    started = time.time()
    executions = coverage = exit_code = 0
    cpu_s = 0.0
    while cpu_s < seconds and not exit_code:
        exit_code, used_s, said = _run_once(target, max(1, round(seconds - cpu_s)))
        cpu_s += used_s
        executions += sum(map(int, _EXECUTIONS.findall(said)))
        coverage = max(map(int, _COVERAGE.findall(said)), default=coverage)
    new = [path for path in findings_of(target) if path.stat().st_mtime >= started - 1]
    return Run(target, executions, coverage, cpu_s, exit_code, new[-1] if new else None)


def _run_once(target: str, wall_s: int) -> tuple[int, float, str]:
    """Run libFuzzer for some time. Return its exit code, its CPU seconds, and what it printed.

    The output is kept in a log. Only its end is read, because libFuzzer counts the memory of this
    process as that of the next target.
    """
    found, kept, log = BUILD / "findings", BUILD / "corpus" / target, BUILD / f"{target}.log"
    for directory in (found, kept):
        directory.mkdir(parents=True, exist_ok=True)
    places = [f"-artifact_prefix={found}/{target}-", f"-dict={SOURCES}/words.dict"]
    command = [str(PROGRAMS / f"fuzz-{target}"), *LIBFUZZER, f"-max_total_time={wall_s}", *places]
    command += [str(kept), str(SOURCES / "corpus" / target)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    _, status, used = os.wait4(process.pid, 0)  # the time of this one, because others run at the same time
    process.returncode = os.waitstatus_to_exitcode(status)
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - LOG_BYTES, 0))
        said = file.read().decode(errors="replace")
    return process.returncode, used.ru_utime + used.ru_stime, said


def findings_of(target: str) -> list[Path]:
    """Return the files of findings, the newest last."""
    return sorted((BUILD / "findings").glob(f"{target}-*"), key=lambda path: path.stat().st_mtime)


def describe(run: Run) -> str:
    """Return the line about a target, and the command that replays its finding."""
    line = f"fuzz: {run.target:13} {run.executions:>11,} inputs, {run.coverage:>4} edges, {run.cpu_s:>4.0f} CPU s, "
    if not run.exit_code:
        return line + "no finding"
    replay = ""
    if run.finding:
        program = (PROGRAMS / f"fuzz-{run.target}").relative_to(ROOT)
        replay = f"\n  replay it: {program} {run.finding.relative_to(ROOT)}"
    log = (BUILD / f"{run.target}.log").relative_to(ROOT)
    return f"{line}FINDING (exit code {run.exit_code}); the report is in {log}{replay}"


if __name__ == "__main__":
    sys.exit(main())
