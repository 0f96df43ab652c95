"""Record the commands of a plain build: the CPU that each used, and the sizes of its results.

    sh bench/run.sh --record lua        writes bench/recorded/lua.json, which simulated workers play back

This program takes the launcher's place (docs/develop/protocol.md, "Preload"): the build tool
starts it instead of each command, and it runs the command.
"""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from projects import CHECKOUT

RECORDED = CHECKOUT / "bench" / "recorded"
LOG_VARIABLE = "BENCH_RECORD"
_OUTPUT_FLAGS = ("-o", "-MF")
_SOURCES = (".c", ".cc", ".cpp", ".S")


class Recorded(msgspec.Struct, frozen=True):
    """A recorded command of a build.

    `outputs` has the sizes of the files that it wrote, in bytes, and `printed` the bytes of its
    output. `cpu_s` is also the time that the command would have needed on a core of its own.
    Unlike the wall time, it does not depend on other programs.
    """

    cpu_s: float
    outputs: tuple[int, ...]
    printed: int = 0


def read_recorded(name: str) -> tuple[Recorded, ...]:
    """Return all recorded commands of one example, in the order in which they ended."""
    return msgspec.json.decode((RECORDED / f"{name}.json").read_bytes(), type=tuple[Recorded, ...])


def write_recorded(name: str, log: Path) -> int:
    """Write bench/recorded/NAME.json from the log of a build; return the number of commands."""
    commands = [msgspec.json.decode(line, type=Recorded) for line in log.read_bytes().splitlines()]
    RECORDED.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(msgspec.to_builtins(command)) for command in commands)
    (RECORDED / f"{name}.json").write_text(f"[\n{lines}\n]\n")
    return len(commands)


def recording_environment(preload: Path, log: Path) -> dict[str, str]:
    """Return the variables that make a build tool start this program instead of its commands."""
    return {
        "LD_PRELOAD": str(preload),
        "TERMITE_PRELOAD": str(preload),
        "TERMITE_LAUNCHER": str(CHECKOUT / "bench" / "record.sh"),
        LOG_VARIABLE: str(log),
    }


def main() -> None:
    """Run one command and append its record to the log; exit with its exit code.

    The preload library calls `record.py --preload=make --exe=FILE --search=N -- ARGV0 ARG...`.
    """
    words = sys.argv[1:]
    end = words.index("--")
    options = dict(word.lstrip("-").split("=", 1) for word in words[:end])
    argv = words[end + 1 :]
    if "make" in Path(argv[0]).name or "make" in argv[-1]:  # a make is not recorded, but its commands are
        os.environ["LD_PRELOAD"] = os.environ["TERMITE_PRELOAD"]
        os.execvp(options["exe"], argv)
    os.environ.pop("LD_PRELOAD", None)
    with subprocess.Popen(argv, executable=options["exe"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    sizes = tuple(os.path.getsize(path) for path in written(argv) if os.path.isfile(path))
    line = Recorded(round(used.ru_utime + used.ru_stime, 4), sizes, len(said))
    with open(os.environ[LOG_VARIABLE], "ab", buffering=0) as log:
        log.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.write(said)
    sys.stdout.flush()
    sys.exit(process.returncode if process.returncode >= 0 else 128 - process.returncode)


def written(argv: Sequence[str]) -> Iterator[str]:
    """Yield the files that the command line of a compiler or an archiver names as outputs."""
    words = argv[-1].split() if len(argv) == 3 and argv[1] == "-c" else list(argv)
    named = [following for word, following in itertools.pairwise(words) if word in _OUTPUT_FLAGS]
    yield from named
    if "-c" in words and "-o" not in words:
        yield from (f"{Path(word).stem}.o" for word in words if Path(word).suffix in _SOURCES)
    if Path(words[0]).name == "ar":
        yield from (word for word in words if word.endswith(".a"))


if __name__ == "__main__":
    main()
