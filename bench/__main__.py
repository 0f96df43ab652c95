"""The command line of the benchmark: measure the parts, show one table, write one JSON file.

Run it with `make bench`, or with `sh bench/run.sh --only lua,latency` for some parts. A missed
target is not an error. The exit code is 1 only if a part could not be measured, or if the run was
ended early.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from bench import builds, cpu, large, latency, live, llvm, pooled, report, throughput, wire
from bench.cpu import Accounts, accounts
from bench.figures import Figure, strangers
from bench.report import KEPT, RESULTS, Part
from bench.rounds import FAILURES, BenchError, Settings
from bench.turns import TURN_S, can_take_turns
from projects import CHECKOUT

Measure = Callable[[Settings], list[Figure]]

# The parts run in this order: short ones first.
PARTS: Mapping[str, tuple[Measure, str]] = {
    "latency": (latency.measure, "one command: on a worker, local, without a master"),
    "throughput": (throughput.measure_rate, "short jobs through one master to simulated workers"),
    "slots": (throughput.measure_slots, "200 slots on simulated workers, with jobs as long as those of an LLVM build"),
    "traffic": (wire.measure_jobs, "requests and bytes of a cold job and a warm one"),
    "refresh": (live.measure_refresh, "the cost of a local command in a live tree of 100,000 files"),
    "memory": (live.measure_memory, "memory of master and mirror with a live tree of 100,000 files"),
    "lua": (builds.lua, "Lua, warm, against plain make"),
    "zlib": (builds.zlib, "zlib, warm, against plain make"),
    "llvm": (llvm.measure_warm, "LLVMSupport, warm, against plain ninja, distcc and icecc"),
    "linux": (large.linux, "Linux 6.1 tinyconfig, warm, against plain make"),
    "thin": (wire.measure_thin, "LLVMSupport over a relay of 20 ms and 25/5 Mbit/s, against the same relay opened"),
    "first": (llvm.measure_first, "LLVMSupport for the first time, and on the next day, against plain ninja"),
    "emacs": (large.emacs, "a part of Emacs (--whole-emacs: all of it), warm, against plain make"),
}

RECORDABLE = {"lua": "example", "llvm": "ninja"}  # builds that simulated workers play back, and the variant of each

ENDINGS = (signal.SIGTERM, signal.SIGHUP)

# If the output is a file, its lines are as long as the table needs.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


def main() -> None:
    """Run the chosen parts and report them; show or record instead if a flag asks for that."""
    flags = _flags()
    if flags.pool:
        _show_pool(flags.pool)
        return
    for ending in ENDINGS:
        if signal.getsignal(ending) is not signal.SIG_IGN:  # nohup ignores SIGHUP, and it must stay ignored
            signal.signal(ending, _end)
    chosen = [name for name in PARTS if not flags.only or name in flags.only]
    os.environ.pop("PYTHONPATH", None)  # run.sh sets it for us; builds must not see it
    with accounts() as counted:
        settings = _settings(flags, counted)
        if flags.record:
            builds.record(settings, flags.record, builds.EXAMPLES / flags.record / f"{RECORDABLE[flags.record]}.toml")
            return
        parts: list[Part] = []
        commit = report.commit()  # now, because somebody may change the checkout during a long run
        try:
            for number, name in enumerate(chosen, 1):
                console.print(f"[{number}/{len(chosen)}] {name}: {PARTS[name][1]}", markup=False)
                parts.append(_measure(name, settings))
                if settings.ended.is_set():
                    break
        finally:  # an interrupted run also reports the parts that it has finished
            _report(parts, flags, TURN_S if can_take_turns(settings) else None, commit, chosen[len(parts) :])
    if settings.ended.is_set() or any(part.trouble for part in parts):
        sys.exit(1)


def _end(*_: object) -> None:
    """Exit, so that every `finally` ends the processes that it started.

    Ignore further signals: a shell that hangs up sends SIGHUP twice, and the second one would
    interrupt this clean-up.
    """
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    sys.exit("ended by a signal")


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # if the terminal is gone, the measurement still goes on
        console.print(f"  {time.strftime('%H:%M:%S')} {line}", markup=False)


def _measure(name: str, settings: Settings) -> Part:
    figures: list[Figure] = []
    trouble = ""

    def work() -> None:
        nonlocal trouble
        try:
            figures.extend(PARTS[name][0](settings))
        except FAILURES as error:
            trouble = str(error)
            settings.say(f"not measured: {trouble}")

    settings.notes.clear()
    stolen_s = cpu.stolen_s()
    whole = settings.accounts.measure(work)
    stolen = (cpu.stolen_s() - stolen_s) / (whole.wall_s * (os.cpu_count() or 1))
    return Part(name, tuple(figures), whole.wall_s, strangers([whole]), trouble, tuple(settings.notes), stolen)


def _report(
    parts: list[Part], flags: argparse.Namespace, turn_s: float | None, commit: str, not_reached: list[str]
) -> None:
    if not parts:
        return
    told = {name: value for name, value in vars(flags).items() if _says_what_is_measured(name, value)}
    told["turn_s"] = turn_s  # length of a turn in whole builds; None if one build came after the other
    # The file comes first: the terminal may be gone.
    path = report.write(report.as_json(parts, told, commit, not_reached), flags.results)
    report.show(parts, console)
    if not_reached:
        console.print(f"ended before {', '.join(not_reached)}", markup=False)
    console.print(f"written to {path}", markup=False)


def _says_what_is_measured(name: str, value: object) -> bool:
    return name not in ("pool", "keep") and not isinstance(value, Path)


def _show_pool(paths: list[Path]) -> None:
    try:
        reports = [json.loads(path.read_text()) for path in paths]
        ratios, left_out = pooled.pooled(reports)
    except (OSError, ValueError, BenchError) as error:
        sys.exit(f"bench: {error}")
    console.print(pooled.table(ratios))
    for line in left_out:
        console.print(line, markup=False)


def _settings(flags: argparse.Namespace, counted: Accounts) -> Settings:
    return Settings(
        accounts=counted,
        say=_say,
        rounds=flags.rounds,
        limit_s=flags.limit * 60,
        jobs=flags.jobs,
        quick=flags.quick,
        whole_emacs=flags.whole_emacs,
        short=flags.short,
        work=flags.work,
        sources=flags.sources,
        fresh=flags.fresh,
    )


def _flags(words: Sequence[str] | None = None) -> argparse.Namespace:
    listed = "\n".join(f"  {name:11} {text}" for name, (_, text) in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="sh bench/run.sh",
        description="Measure termite beside plain builds and its peers. The figures: docs/develop/performance.md.",
        epilog=f"parts:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", type=_names, default=[], metavar="PART,...", help="measure only these parts")
    add("--rounds", type=_count, default=5, help="rounds of each part (default: 5; lua and zlib: five times as many)")
    add("--limit", type=float, default=40.0, metavar="MINUTES", help="begin no further round of a part after this time")
    add("--jobs", type=int, default=2, help="the -j of all builds (default: 2)")
    add("--quick", action="store_true", help="use small workloads, to see that the programs work")
    add("--whole-emacs", action="store_true", help="build all of Emacs instead of a part of it")
    add("--short", default="auto", metavar="MS", help="pass this to the master of whole builds; 0: every job is remote")
    add("--fresh", action="store_true", help="prepare all trees again")
    add("--work", type=Path, default=CHECKOUT / "build" / "bench", help="build in this directory")
    add("--sources", type=Path, default=CHECKOUT / "build" / "sources", help="keep fetched sources in this directory")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--results", type=Path, default=RESULTS, help="write the JSON file here (build/bench/results)")
    place.add_argument("--keep", action="store_true", help="write it to bench/results, to be cited by a document")
    add("--pool", type=Path, nargs="+", metavar="FILE", help="measure nothing; show these results' ratios together")
    add("--record", choices=RECORDABLE, help="measure nothing; rewrite bench/recorded/NAME.json from a plain build")
    flags = parser.parse_args(words)
    if flags.keep:
        flags.results = KEPT
    for name in ("work", "sources", "results"):
        setattr(flags, name, getattr(flags, name).resolve())
    return flags


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"no such part: {', '.join(unknown)} (there are: {', '.join(PARTS)})")
    return names


if __name__ == "__main__":
    main()
