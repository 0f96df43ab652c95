"""Suites of other projects end through termite as they end plainly: fuse3, ninja and CMake."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sources import SourceError
from tests.e2e.cluster import Tree
from tests.e2e.places import IS_ROOT

NEVER = {"TERMITE_LOCAL": "never"}
HAVE = ("HAVE_STRUCT_STAT_ST_ATIM", "HAVE_UTIMENSAT", "HAVE_POSIX_FALLOCATE", "HAVE_COPY_FILE_RANGE")


def fetched(source: Callable[[str], Path], package: str) -> Path:
    try:
        return source(package)
    except SourceError as error:
        pytest.skip(f"the source of {package} cannot be fetched: {error}")


def test_fuse3s_checks_of_system_calls(tree: Tree, source: Callable[[str], Path]) -> None:
    suite = fetched(source, "fuse3") / "test" / "test_syscalls.c"
    tree.write("test_syscalls.c", suite.read_bytes())
    tree.write("fuse_config.h", "".join(f"#define {name} 1\n" for name in HAVE))
    assert tree.plain("gcc", "-w", "-D_GNU_SOURCE", "-I.", "test_syscalls.c", "-o", "checks").code == 0
    tree.mkdir("fs")
    checks = ("sh", "-c", "./checks $PWD/fs")
    plain = tree.plain(*checks)
    assert (plain.code, plain.stderr.count(b"OK") > 50) == (0, True), plain
    assert tree.termite(*checks, env=NEVER) == plain


def test_ninjas_tests_of_its_output(tree: Tree, source: Callable[[str], Path]) -> None:
    ninja = shutil.which("ninja")
    if not ninja:
        pytest.skip("ninja is not installed (apt-get install ninja-build)")
    suite = fetched(source, "ninja-build") / "misc" / "output_test.py"
    tree.write("output_test.py", suite.read_bytes())
    tree.mkdir("tmp")

    def result(program: str) -> tuple[int, list[tuple[str, str]]]:
        tree.write("ninja", f'#!/bin/sh\nexec {program} "$@"\n', 0o755)
        done = tree.plain("sh", "-c", 'TMPDIR="$PWD/tmp" python3 output_test.py -v 2>&1', timeout_s=60)
        return done.code, re.findall(r"\.\.\. (\w+)$|^Ran (\d+) tests", done.stdout.decode(), re.MULTILINE)

    plain, jobs = result(ninja), tree.jobs()
    assert (plain[0], len(plain[1]) > 8) == (0, True), plain
    assert result(tree.where.word("termite-ninja")) == plain
    assert tree.jobs() > jobs


GENERATORS = ("Ninja", "Unix Makefiles")
LAUNCHES = ("${CMAKE_COMMAND};-E;env;USED_LAUNCHER=1", "$<PATH:CMAKE_PATH,${CMAKE_COMMAND}>;-E;env;USED_LAUNCHER=1")


def test_cmakes_tests_of_compiler_launchers(tree: Tree, source: Callable[[str], Path]) -> None:
    """Root has one generator and the ordinary user the other, so that this takes half the time."""
    if not shutil.which("cmake") or not shutil.which("ninja"):
        pytest.skip("cmake or ninja is not installed (apt-get install cmake ninja-build)")
    suites = fetched(source, "cmake") / "Tests" / "RunCMake"
    launcher = tree.where.termite("termite")
    tree.write("RunCMake.cmake", (suites / "RunCMake.cmake").read_bytes())
    for file in (suites / "CompilerLauncher").iterdir():
        text = file.read_text()
        for launch in LAUNCHES:
            text = text.replace(launch, launcher)
        tree.write(f"suite/{file.name}", text.replace("-E env USED_LAUNCHER=1", f"{re.escape(launcher)} "))
    settings: dict[str, object] = {"MODULE_PATH": tree.path, "C_COMPILER_ID": "GNU", "CXX_COMPILER_ID": "GNU"}
    for generator in GENERATORS if not IS_ROOT else GENERATORS[tree.where.uid == 0 :][:1]:
        places: dict[str, object] = {"SOURCE_DIR": tree.path / "suite", "BINARY_DIR": tree.path / generator.split()[0]}
        places |= {"GENERATOR": generator, "GENERATOR_IS_MULTI_CONFIG": 0}
        words = [f"-DCMAKE_{key}={value}" for key, value in settings.items()]
        words += [f"-DRunCMake_{key}={value}" for key, value in places.items()]
        jobs = tree.jobs()
        done = tree.plain(
            "cmake", *words, "-P", str(tree.path / "suite" / "RunCMakeTest.cmake"), env=NEVER, timeout_s=60
        )
        assert (done.code, done.stdout.count(b"PASSED")) == (0, 16), done
        assert tree.jobs() > jobs + 8, "the compilers ran on a worker"
