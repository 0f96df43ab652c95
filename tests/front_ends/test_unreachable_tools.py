"""Build tools that cannot load a preload library: the user gets one line, and they build here."""

import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.cluster import Tree
from tests.e2e.places import COMMANDS

MANIFEST = "rule r\n  command = echo made >$out; cat $out\nbuild out: r\n"
LISTS = "cmake_minimum_required(VERSION 3.20)\nproject(p NONE)\n"
LISTS += 'add_custom_target(t ALL COMMAND sh -c "echo made >${CMAKE_SOURCE_DIR}/out" VERBATIM)\n'


@dataclass(frozen=True)
class Kind:
    """The command line of a tool with termite, and the files that it needs."""

    tool: str
    call: tuple[str, ...]
    name: str
    content: str
    configure: tuple[str, ...] = ()


KINDS = {
    "make": Kind("make", ("termite-make",), "Makefile", "all:\n\t@echo made >out; cat out\n"),
    "ninja": Kind("ninja", ("termite-ninja",), "build.ninja", MANIFEST),
    "make by termite-build": Kind("make", ("termite-build", "make"), "Makefile", "all:\n\t@echo made >out; cat out\n"),
    "ninja of a plain CMake build": Kind(
        "ninja",
        ("termite-cmake", "--build", "b"),
        "CMakeLists.txt",
        LISTS,
        ("cmake", "-G", "Ninja", "-S", ".", "-B", "b"),
    ),
}
HOWS = ["static", pytest.param("set-user-id", marks=pytest.mark.needs_root("makes a set-user-id program"))]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_it_gets_one_line_and_builds_here(tree: Tree, kind: Kind, how: str) -> None:
    tree.write(kind.name, kind.content)
    tool = tree.mkdir("bin") / kind.tool
    shutil.copy(f"/usr/bin/{kind.tool}", tool)
    env = {"PATH": f"{tree.path / 'bin'}:/usr/bin:/bin:{COMMANDS}"}
    if kind.configure:
        assert tree.plain(*kind.configure, env=env).code == 0
    if how == "static":
        _static_stand_in(tool)
    else:
        tool.chmod(0o4755)
    before = tree.jobs()
    program, *arguments = kind.call
    done = tree.plain(tree.where.termite(program), *arguments, env=env)
    reason = "is linked statically" if how == "static" else "is set-user-id or set-group-id"
    said = f"termite: started without workers: {tool} {reason}, so its commands cannot be sent to workers\n"
    assert (done.code, done.stderr.decode()) == (0, said)
    assert (tree.path / "out").read_text() == "made\n"
    assert tree.jobs() == before


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_it_does_not_where_building_here_is_forbidden(tree: Tree, kind: Kind) -> None:
    tree.write(kind.name, kind.content)
    tool = tree.mkdir("bin") / kind.tool
    path = f"{tree.path / 'bin'}:/usr/bin:/bin:{COMMANDS}"
    program, *arguments = kind.call
    if kind.configure:
        shutil.copy(f"/usr/bin/{kind.tool}", tool)
        assert tree.plain(*kind.configure, env={"PATH": path}).code == 0
    _static_stand_in(tool)
    done = tree.plain(tree.where.termite(program), *arguments, env={"PATH": path, "TERMITE_LOCAL": "never"})
    assert (done.code, done.stderr.count(b"\n")) == (103, 1), done
    assert not (tree.path / "out").exists()


def _static_stand_in(path: Path) -> None:
    """Make a static program that becomes the real tool.

    The test needs only that no library can be loaded into the program.
    """
    text = f'#include <unistd.h>\nint main(int c,char**v){{return execv("/usr/bin/{path.name}",v);}}\n'
    path.unlink(missing_ok=True)
    subprocess.run(["gcc", "-static", "-x", "c", "-", "-o", path], input=text.encode(), check=True)
    assert not os.stat(path).st_mode & stat.S_ISUID
