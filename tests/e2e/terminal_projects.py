"""Five small projects whose tools write other bytes to a terminal than to a pipe.

Each is built by commands that are typed one after the other. Their order of work is fixed (`-j1`),
because the bytes of two builds are compared.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.e2e.places import COMMANDS

LIBRARY = """#include "shapes.h"
#define SQUARE(x) ((x) * (x) + half)
int area(int width, int height) {
    int half = 2.5 * width;
    unsigned limit = 7;
    if (width < limit) printf("%s\\n", width);
    return SQUARE(width) + height;
}
"""
HEADER = "#include <stdio.h>\nint area(int width, int height);\nint edge(int);\n"
EDGE = '#include "shapes.h"\nint edge(int n) { switch (n) { case 1: n++; case 2: return n; } }\n'
BROKEN = '#include "shapes.h"\nint main(void) { struct shape s = {1}; return aera(3, 4) + "two"; }\n'
MAIN = '#include "shapes.h"\nint main(void) { return area(3, 4) + edge(1) == 0; }\n'
MAKEFILE = """CFLAGS = -O1 -Wall -Wextra
all: shapes broken.o
shapes: main.o area.o edge.o
\t$(CC) -o $@ $^
main.o area.o edge.o broken.o: shapes.h
"""

NINJA = """rule cc
  command = gcc -Wall -c $in -o $out
  description = Compiles $in into $out, which is a line that is longer than this terminal is wide
rule link
  command = gcc $in -o $out
  description = Links $out
rule ask
  command = printf '\\033[35m%s columns\\033[0m\\n' $$(stty size <&2 | cut -d' ' -f2); touch $out
  description = Asks the terminal
  pool = console
build main.o: cc main.c
build area.o: cc area.c
build edge.o: cc edge.c
build asked: ask
build shapes: link main.o area.o edge.o || asked
build broken.o: cc broken.c | shapes
default broken.o
"""

LISTS = """cmake_minimum_required(VERSION 3.20)
project(shapes C)
set(CMAKE_C_FLAGS "-Wall -Wextra")
add_library(shape STATIC area.c edge.c)
add_custom_command(OUTPUT made.c COMMAND ${CMAKE_COMMAND} -E cmake_echo_color --green --bold makes
    COMMAND ${CMAKE_COMMAND} -E copy ${CMAKE_SOURCE_DIR}/main.c made.c COMMENT "Makes a source")
add_executable(shapes ${CMAKE_BINARY_DIR}/made.c)
target_include_directories(shapes PRIVATE ${CMAKE_SOURCE_DIR})
target_link_libraries(shapes shape)
"""

BAR = """import shutil, sys
name, steps = sys.argv[1], int(sys.argv[2])
width = shutil.get_terminal_size((20, 1)).columns - len(name) - 8
for step in range(steps + 1):
    done = width * step // steps
    bar = f"{name} [{'#' * done}{' ' * (width - done)}] {100 * step // steps:3d}%"
    print(bar, end="\\r" if sys.stderr.isatty() else "\\n", file=sys.stderr, flush=True)
if sys.stdout.isatty():
    print("\\x1b[K\\x1b[1A\\x1b[K\\x1b[32m\\u2713\\x1b[0m", end="")
print(f"\\t{name} done")
with open(name, "w") as file:
    file.write("done\\n")
"""
BARS = "all: fetch unpack install\n%:\n\t@python3 bar.py $@ 40\nMakefile: ;\n"

CHECKS = """import sys, os, pytest
def test_adds(): assert 1 + 1 == 2
@pytest.mark.parametrize("n", range(30))
def test_many(n): assert n != 17, "this one fails"
def test_names():
    assert {"one": 1, "two": [1, 2, 3]} == {"one": 1, "two": [1, 2, 4]}
@pytest.mark.skip(reason="not today")
def test_later(): pass
def test_wide():
    with open("/dev/tty") as terminal: print("columns", os.get_terminal_size(terminal.fileno()).columns)
    assert False
"""


@dataclass(frozen=True, slots=True)
class TerminalProject:
    """A project with its files, and with the programs and arguments that build it.

    A program has the name of the plain one: a build through termite puts `termite-` before it.
    `marks` are what only a terminal gets. At least `jobs` commands must have run on workers.
    `same` returns output without what differs from run to run.
    """

    files: Mapping[str, str]
    commands: tuple[tuple[str, ...], ...]
    marks: tuple[bytes, ...]
    jobs: int
    same: Callable[[bytes], bytes] = field(default=bytes)


def _without_times(output: bytes) -> bytes:
    """Return the output of pytest without the time that the tests took, which is never the same."""
    return re.sub(rb"in \d+\.\d\ds", b"in ?s", output)


SOURCES = {"shapes.h": HEADER, "area.c": LIBRARY, "edge.c": EDGE, "main.c": MAIN, "broken.c": BROKEN}
RUNNER = f"{COMMANDS / 'python'} -B -m pytest"  # -B: a compiled module would be a write outside the tree
PYTEST = f"check:\n\t{RUNNER} -p no:cacheprovider -p no:randomly -c /dev/null --rootdir . checks.py\n"
PROJECTS = {
    "make with gcc": TerminalProject(
        {**SOURCES, "Makefile": MAKEFILE},
        (("make", "-k", "-j1"),),
        (b"\x1b[01;35m\x1b[Kwarning:", b"\x1b[01;31m\x1b[Kerror:"),
        5,
    ),
    "ninja": TerminalProject(
        {**SOURCES, "build.ninja": NINJA},
        (("ninja", "-j1"), ("ninja", "-j1", "asked", "shapes")),
        (b"\r[", b"\x1b[K", b"...", b"\x1b[35m77 columns"),
        6,
    ),
    "cmake and make": TerminalProject(
        {**SOURCES, "CMakeLists.txt": LISTS},
        (("cmake", "-S", ".", "-B", "b"), ("cmake", "--build", "b"), ("cmake", "--build", "b")),
        (b"\x1b[32m", b"\x1b[01;35m\x1b[Kwarning:"),
        5,
    ),
    "a progress bar": TerminalProject(
        {"bar.py": BAR, "Makefile": BARS}, (("make", "-j1"),), (b"100%\r", "\u2713".encode()), 3
    ),
    "a test runner": TerminalProject(
        {"checks.py": CHECKS, "Makefile": PYTEST},
        (("make",),),
        (b"\x1b[32m.", b"\x1b[31mF", b"columns 77"),
        1,
        _without_times,
    ),
}
