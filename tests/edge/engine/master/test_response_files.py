"""Test which options a command of a compiler has in files."""

import os
from pathlib import Path

import pytest

from termite.engine.master.remote_runs.machine_questions import MAX_BYTES, MAX_FILES, options_in_files
from termite.engine.model import Command


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "flags").write_text("-O2 -march=native\n")
    (root / "sub" / "more").write_text("@../flags -c\n")
    return root


def options(root: Path, text: str, cwd: str = "") -> str:
    argv = tuple(text.split())
    return options_in_files(Command(argv, argv[0], True, str(root / cwd), {}, text), str(root))


def test_the_files_that_a_compiler_reads_are_read_and_no_others(root: Path) -> None:
    native = (root / "flags").read_text()
    for text in ("gcc @flags -c a.c", "x86_64-linux-gnu-g++-12 '@flags'", f"cd x && clang @{root}/flags a.c"):
        assert options(root, text) == native, text
    assert native in options(root, "rustc @more", "sub")
    (root.parent / "flags").write_text("-march=native")
    for text in (
        "echo @flags",
        "gcc user@flags",
        "gcc -c a.c",
        "gcc @none",
        "gcc @../flags",
        "gcc @sub",
        "mygcc.py @flags",
    ):
        assert not options(root, text), text


def test_a_file_takes_no_time_however_long_or_odd_it_is(root: Path) -> None:
    os.mkfifo(root / "fifo")
    assert not options(root, "gcc @fifo")
    (root / "long").write_text("x" * (2 * MAX_BYTES))
    assert len(options(root, "gcc @long")) == MAX_BYTES
    (root / "itself").write_text("@itself")
    assert options(root, "gcc @itself") == "@itself"
    for number in range(2 * MAX_FILES):
        (root / f"f{number}").write_text(f"@f{number + 1}")
    assert options(root, "gcc @f0").count("@") == MAX_FILES
