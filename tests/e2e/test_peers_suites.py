"""Suites of other projects end through termite as they end plainly: fuse3's and ninja's."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sources import SourceError
from tests.e2e.cluster import Tree

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
