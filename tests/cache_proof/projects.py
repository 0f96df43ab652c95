"""The projects that are built: packages of Debian, and commands of many kinds."""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sources import fetch_source
from tests.e2e.cluster import Tree
from tests.e2e.places import CHECKOUT, IS_ROOT
from tests.edge.engine.recall.table_commands import COMMANDS, SETUP

SOURCES = CHECKOUT / "build" / "sources"
PREPARE_LIMIT_S = 600.0
CMAKE = ("cmake", "-GNinja", "-S.", "-Bbuild", "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_C_FLAGS=-O0 -g")
TABLE = "commands"
# The order of names in a directory is that of a worker, and no promise (Limits in README).
SORTED = {'find . -name "*.h" > out/found': 'find . -name "*.h" | sort > out/found'}


@dataclass(frozen=True, slots=True)
class Project:
    """A project. `tool` is make or ninja, and `words` follow it and -j.

    `write` puts the sources into an empty directory, and `prepare` has the commands that configure
    it. `within` is the directory of the build.
    """

    name: str
    tool: str
    words: tuple[str, ...]
    write: Callable[[Path], None]
    prepare: tuple[tuple[str, ...], ...] = ()
    within: str = "."

    def make(self, tree: Tree) -> Tree:
        """Make the project in the tree, ready to be built, and return its directory there."""
        own = tree.subtree(self.name)
        self.write(own.path)
        give(own.path, tree.where.uid)
        for command in self.prepare:
            done = own.plain(*command, timeout_s=PREPARE_LIMIT_S)
            assert done.code == 0, f"{self.name}: {command}: {done}"
        return own


def give(top: Path, uid: int) -> None:
    """Give everything below a directory to the user of a place."""
    if IS_ROOT:
        subprocess.run(["chown", "-hR", f"{uid}:{uid}", top], check=True)


def _package(package: str) -> Callable[[Path], None]:
    def write(top: Path) -> None:
        source = fetch_source(package, SOURCES, patched=False)
        shutil.copytree(source, top, symlinks=True, dirs_exist_ok=True)
        for left_out in (".git", ".pc", "debian"):
            shutil.rmtree(top / left_out, ignore_errors=True)

    return write


def _write_llvm(top: Path) -> None:
    """Write the parts of LLVM that LLVMSupport needs, as `examples/llvm` does."""
    source = fetch_source("llvm-toolchain-14", SOURCES, patched=False)
    for part in ("llvm", "cmake", "third-party"):
        shutil.copytree(source / part, top / part, symlinks=True)


def _write_table(top: Path) -> None:
    """Write a directory with a makefile for each command of the table."""
    first = top / "c0"
    first.mkdir()
    subprocess.run(["sh", "-ec", SETUP], cwd=first, check=True, stdin=subprocess.DEVNULL)
    names = [f"c{number}" for number in range(len(COMMANDS))]
    assert SORTED.keys() <= set(COMMANDS)
    for name, command in zip(names, COMMANDS, strict=True):
        if name != first.name:
            subprocess.run(["cp", "-a", first, top / name], check=True)
        written = SORTED.get(command, command).replace("$", "$$")
        (top / f"{name}.mk").write_text(f"run: ; {written}\n")
    (top / "Makefile").write_text(
        f"all: {' '.join(names)}\n.PHONY: all {' '.join(names)}\n"
        + "".join(f"{name}: ; @$(MAKE) --no-print-directory -C {name} -f ../{name}.mk run\n" for name in names)
    )


SMALL_FILES = 6
SMALL_MAKEFILE = """
CFLAGS = -O0 -g -Iextra -Iinc
OBJECTS = {objects}
all: program list stamp
program: main.o libparts.a ; $(CC) -g -o $@ main.o libparts.a
libparts.a: $(OBJECTS) ; rm -f $@; ar rcs $@ $(OBJECTS)
$(OBJECTS) main.o: inc/parts.h inc/version.h
inc/version.h: version.in ; sed s/@version@/$$(cat version.in)/ template >$@.tmp && mv $@.tmp $@
list: program ; ls inc > $@; wc -c < inc/parts.h >> $@; ./program >> $@
stamp: list ; mkdir -p made/deep && cp list made/deep/list && install -m 640 list made/other && touch $@
"""


def _write_small(top: Path) -> None:
    (top / "inc").mkdir()
    (top / "inc" / "parts.h").write_text("".join(f"int part{n}(void);\n" for n in range(SMALL_FILES)))
    (top / "template").write_text('#define VERSION "@version@"\n')
    (top / "version.in").write_text("1.0\n")
    for n in range(SMALL_FILES):
        (top / f"part{n}.c").write_text(
            f'#include "parts.h"\n#include <stdio.h>\nint part{n}(void) {{ return {n}; }}\n'
        )
    calls = "+".join(f"part{n}()" for n in range(SMALL_FILES))
    (top / "main.c").write_text(
        '#include <stdio.h>\n#include "parts.h"\n#include "version.h"\n'
        f'int main(void) {{ printf("%s %d\\n", VERSION, {calls}); return 0; }}\n'
    )
    objects = " ".join(f"part{n}.o" for n in range(SMALL_FILES))
    (top / "Makefile").write_text(SMALL_MAKEFILE.replace("{objects}", objects))


def _of_make(name: str, words: Sequence[str] = (), package: str = "", prepare: Sequence[Sequence[str]] = ()) -> Project:
    return Project(name, "make", ("-k", *words), _package(package or name), tuple(map(tuple, prepare)))


def _of_ninja(name: str, package: str, *options: str) -> Project:
    return Project(name, "ninja", ("-k0",), _package(package), ((*CMAKE, *options),), "build")


LLVM = ("cmake", "-GNinja", "-Sllvm", "-Bbuild", "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS_RELEASE=-O0")
LLVM_PARTS = ("-DLLVM_TARGETS_TO_BUILD=X86", *(f"-DLLVM_INCLUDE_{part}=OFF" for part in ("TESTS", "BENCHMARKS")))
SMALL = Project("small", "make", ("-k",), _write_small)
PROJECTS = {
    project.name: project
    for project in (
        SMALL,
        Project(TABLE, "make", ("-k",), _write_table),
        _of_make("lua", ("-C", "src", "linux", "MYCFLAGS=-O0"), "lua5.4"),
        _of_make("zlib", ("CFLAGS=-O0", "SFLAGS=-O0 -fPIC"), prepare=[("./configure",)]),
        _of_make(
            "make",
            (),
            "make-dfsg",
            [("autoreconf", "-fi"), ("./configure", "CFLAGS=-O0", "--disable-nls", "--without-guile")],
        ),
        _of_make("coreutils", (), "coreutils", [("./configure", "CFLAGS=-O0", "--disable-nls")]),
        _of_make("bzip2", ("CFLAGS=-O0", "all"), "bzip2"),
        Project("llvm", "ninja", ("-k0", "LLVMSupport"), _write_llvm, ((*LLVM, *LLVM_PARTS),), "build"),
        _of_ninja("jansson", "jansson", "-DJANSSON_BUILD_DOCS=OFF"),
        _of_ninja("libpng", "libpng1.6", "-DPNG_TESTS=OFF"),
        _of_ninja("xz", "xz-utils", "-DBUILD_SHARED_LIBS=OFF"),
    )
}

LARGE = ("coreutils", "llvm")  # they take so long that somebody has to name them
