"""The command termite-build: run any tool that a plugin knows, with its commands on workers."""

import sys
from collections.abc import Sequence

from termite.cli.build_commands import front_end
from termite.cli.build_commands.build_tools import is_there
from termite.cli.build_commands.cmake import CMAKE, run_cmake
from termite.cli.build_commands.make import MAKE
from termite.cli.build_commands.ninja import NINJA
from termite.cli.flags import VERSION, run_command
from termite.cli.moved_trees.own_words import FLAG, take_at
from termite.engine.errors import UserError
from termite.engine.nearest_name import nearest_name, wrong_name

# Tools of the plugins that stand in docs/use/front-ends.md, for whoever misspells one.
_TOOLS = ("make", "ninja", "cmake", "cargo", "go", "meson", "bmake", "remake", "just", "scons", "dune")
# Names under which make and ninja are installed; all take the same flags.
_PRELOADED = ((MAKE, ("make", "gmake")), (NINJA, ("ninja", "ninja-build", "samu")))


def run_build(argv: Sequence[str]) -> int:
    """Run the tool `argv[0]` with its arguments and return its exit code."""
    if not argv:
        raise UserError("which build tool?", hint="termite-build TOOL ..., see termite-build --help")
    if argv[0] in ("--help", "-h", "-help"):
        from termite.cli.build_commands.front_end_help import build_help

        print(build_help())
        return 0
    if argv[0] in ("--version", "-version"):
        print(f"termite-build {VERSION}")
        return 0
    # Only in front of the tool: its own words may have another meaning of --at.
    at, _ = take_at(argv[:2] if argv[0] == FLAG else argv[:1])
    own = [FLAG, at] if at else []
    argv = argv[2 if argv[0] == FLAG else 1 :] if at else argv
    if not argv:
        raise UserError("which build tool?", hint="termite-build --at PATH TOOL ...")
    if argv[0].startswith("-"):
        raise wrong_name("flag", argv[0], ["-help", "-version", "--at"], "termite-build --help")
    program, args = argv[0], argv[1:]
    name = program.rpartition("/")[2]
    if name == CMAKE.name:
        return run_cmake([*own, *argv])
    for tool, names in _PRELOADED:
        if program in names:
            return front_end.run_tool(tool.named(program), [*own, *args])
    if not is_there(program) and (near := nearest_name(name, _TOOLS)) and is_there(near):
        raise UserError(f"{program} is not in your PATH: write {near}")
    return front_end.build_with(front_end.Tool(name=name, is_preloaded=False), program, args, "", at)


def main() -> int:
    """Run the command termite-build and return its exit code."""
    return run_command("termite-build", lambda: run_build(sys.argv[1:]))


if __name__ == "__main__":
    raise SystemExit(main())
