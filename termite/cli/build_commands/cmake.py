"""The command termite-cmake: stock CMake, with the commands of its builds on workers.

Configuring puts the launcher in front of the commands of the build directory. This needs no master:
its checks decide how the project is built, so they run on this machine.
"""

import enum
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import termite
from termite.cli.build_commands import front_end
from termite.cli.build_commands.build_tools import READ_BYTES, check_preload
from termite.cli.flags import run_command
from termite.cli.moved_trees.own_words import take_at
from termite.engine.decide.logic.switches import check_variables, is_switched_off
from termite.engine.errors import UserError
from termite.engine.host.native_programs import native_program

CMAKE = front_end.Tool(name="cmake", is_preloaded=False)
MODULE = Path(termite.__file__).parent / "plugins" / "cmake" / "launch.cmake"
_ANYWHERE = ("-E", "-P", "-N", "-h", "-H", "-version", "--version", "--help", "--find-package", "--system-information")
_FIRST = ("--install", "--open")
_NINJAS = re.compile(rb"^CMAKE_MAKE_PROGRAM:[^=]*=(.+)$", re.MULTILINE)
_LAUNCHES = b"TERMITE_LAUNCHES:INTERNAL=ON"


class CmakeCall(enum.Enum):
    """The mode of a call of CMake."""

    CONFIGURE = "configure"
    BUILD = "build"
    OTHER = "other"


def read_mode(args: Sequence[str]) -> CmakeCall:
    """Return the mode that CMake itself would choose for `args`.

    The first word names some of the modes other than configuring; any word may name the others.
    """
    if not args or args[0] in _FIRST:
        return CmakeCall.OTHER
    if args[0] in ("--build", "--workflow"):
        return CmakeCall.BUILD
    if any(word in _ANYWHERE or word.startswith("--help-") for word in args):
        return CmakeCall.OTHER
    return CmakeCall.CONFIGURE


def build_directory(args: Sequence[str]) -> str:
    """Return the DIR of `--build DIR`, or "" if a preset names the directory."""
    return args[1] if args[0] == "--build" and len(args) > 1 and not args[1].startswith("-") else ""


def split_program(args: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return the CMake program to run, and its arguments.

    The program is `cmake`, unless the first word names one: `termite-cmake /opt/bin/cmake -B x`.
    """
    if args and os.path.basename(args[0]) == "cmake" and not os.path.isdir(args[0]):
        return args[0], args[1:]
    return "cmake", args


def run_cmake(argv: Sequence[str]) -> int:
    """Run CMake in the mode that the arguments ask for, and return its exit code."""
    if "--termite-help" in argv:
        from termite.cli.build_commands.front_end_help import cmake_help

        print(cmake_help())
        return 0
    front_end.check_own_flags(argv, "termite-cmake")
    at, argv = take_at(argv)
    program, args = split_program(argv)
    if is_switched_off(os.environ):
        return front_end.run_plainly(front_end.command_at([program, *args], at, ""))
    check_variables(os.environ)
    match read_mode(args):
        case CmakeCall.CONFIGURE:
            if not at:
                front_end.refuse_elsewhere("")
            return front_end.run_plainly(front_end.command_at([program, *_injected(), *args], at, ""))
        case CmakeCall.BUILD:
            directory = build_directory(args)
            if not os.path.isdir(directory or "."):
                return front_end.run_plainly([program, *args])
            try:
                _check_make_program(Path(directory))
            except UserError as error:
                return front_end.build_locally([program, *args], error)
            return front_end.build_with(CMAKE, program, args, directory, at)
        case CmakeCall.OTHER:
            is_asked = args and args[0] in ("--version", "-version")
            words = front_end.command_at([program, *args], at, "", is_dry=True)
            return front_end.run_plainly(words, "termite-cmake" if is_asked else "")


def main() -> int:
    """Run the command termite-cmake and return its exit code."""
    return run_command("termite-cmake", lambda: run_cmake(sys.argv[1:]))


def _injected() -> list[str]:
    # These come before the user's own words: CMake lets the last word win.
    return [
        f"-DTERMITE_PROGRAM:FILEPATH={native_program('termite')}",
        f"-DCMAKE_PROJECT_INCLUDE_BEFORE:FILEPATH={MODULE}",
    ]


def _check_make_program(directory: Path) -> None:
    """Raise UserError if no command of the build would reach the launcher."""
    try:
        with (directory / "CMakeCache.txt").open("rb") as file:
            cache = file.read(READ_BYTES)
    except OSError:  # CMake has not configured it, and says so itself
        return
    found = _NINJAS.search(cache)
    program = os.fsdecode(found[1]) if found else ""
    if _LAUNCHES not in cache and os.path.isfile(program):
        check_preload(Path(program))


if __name__ == "__main__":
    raise SystemExit(main())
