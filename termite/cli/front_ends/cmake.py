"""termite-cmake: stock CMake. What it configures has the launcher in its commands; what it builds runs on workers.

Configuring never needs a master: its checks and its own results steer the build, and stay here.
"""

import enum
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import termite
from termite.cli.flags import VERSION, run_command
from termite.cli.front_ends import front_end
from termite.cli.front_ends.build_tools import READ_BYTES, check_preload
from termite.engine.errors import UserError
from termite.engine.host.native_programs import native_program

TOOL = front_end.Tool(name="cmake", is_preloaded=False)
MODULE = Path(termite.__file__).parent / "plugins" / "cmake" / "launch.cmake"
_ANYWHERE = ("-E", "-P", "-N", "-h", "-H", "-version", "--version", "--help", "--find-package", "--system-information")
_FIRST = ("--install", "--open")
_NINJAS = re.compile(rb"^CMAKE_MAKE_PROGRAM:[^=]*=(.+)$", re.MULTILINE)
_LAUNCHES = b"TERMITE_LAUNCHES:INTERNAL=ON"


class Mode(enum.Enum):
    """What a call of CMake does."""

    CONFIGURE = "configure"
    BUILD = "build"
    OTHER = "other"


def read_mode(args: Sequence[str]) -> Mode:
    """By its own rules: the modes other than configuring are named by the first word, or by any."""
    if not args or args[0] in _FIRST:
        return Mode.OTHER
    if args[0] in ("--build", "--workflow"):
        return Mode.BUILD
    if any(word in _ANYWHERE or word.startswith("--help-") for word in args):
        return Mode.OTHER
    return Mode.CONFIGURE


def build_directory(args: Sequence[str]) -> str:
    """Of `--build DIR`; empty where a preset knows it."""
    return args[1] if args[0] == "--build" and len(args) > 1 and not args[1].startswith("-") else ""


def split_program(args: Sequence[str]) -> tuple[str, Sequence[str]]:
    """`termite-cmake cmake -B x` and `termite-cmake /opt/bin/cmake -B x` work too: then that cmake is meant."""
    if args and os.path.basename(args[0]) == "cmake" and not os.path.isdir(args[0]):
        return args[0], args[1:]
    return "cmake", args


def run(argv: Sequence[str]) -> int:
    """Configure, build, or whatever else the arguments say."""
    if list(argv) == ["--termite-help"]:
        print(_HELP.format(version=VERSION))
        return 0
    program, args = split_program(argv)
    match read_mode(args):
        case Mode.CONFIGURE:
            return front_end.run_plainly([program, *_injected(), *args])
        case Mode.BUILD:
            directory = build_directory(args)
            if not os.path.isdir(directory or "."):
                return front_end.run_plainly([program, *args])
            try:
                _check_make_program(Path(directory))
            except UserError as error:
                return front_end.build_locally([program, *args], error)
            return front_end.build(TOOL, program, args, directory)
        case Mode.OTHER:
            return front_end.run_plainly([program, *args])


def main() -> int:
    """The command termite-cmake."""
    return run_command("termite-cmake", lambda: run(sys.argv[1:]))


def _injected() -> list[str]:
    # In front of the user's own words, which win.
    return [
        f"-DTERMITE_PROGRAM:FILEPATH={native_program('termite')}",
        f"-DCMAKE_PROJECT_INCLUDE_BEFORE:FILEPATH={MODULE}",
    ]


def _check_make_program(directory: Path) -> None:
    """UserError where nothing of the build would reach the launcher."""
    try:
        with (directory / "CMakeCache.txt").open("rb") as file:
            cache = file.read(READ_BYTES)
    except OSError:
        return
    found = _NINJAS.search(cache)
    program = os.fsdecode(found[1]) if found else ""
    if _LAUNCHES not in cache and os.path.isfile(program):
        check_preload(Path(program))


_HELP = """termite-cmake {version}: cmake, with what it builds run on other machines

usage: termite-cmake [anything cmake takes]

  termite-cmake -S . -B build     configures a new build directory so that every compiler, linker and generator is
                                  started by termite, whoever builds there afterwards (cmake, make, ninja)
  termite-cmake --build build     builds on workers, however the directory was configured

A directory that was configured without termite keeps its commands, so that nothing is built again.

  TERMITE_ROOT     what a new master lets commands write (default: the checkout, or what contains sources and build)
  TERMITE_SOCKET   the master's socket, instead of looking for one; empty: none
  TERMITE_LOCAL    never: rather fail than run a command here because no worker can
  TERMITE_VERBOSE  1: always say at the end what ran where"""


if __name__ == "__main__":
    raise SystemExit(main())
