"""`termite-ctl last`, `jobs`, `log`, `why` and `trace` read the records of a tree from disk."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from termite.cli.places import records_directory
from termite.engine.history.logic.job_record import Where
from tests.synthetic_builds import synthetic_history, write_history

HISTORY = synthetic_history(3, 60)
Ctl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a tree with three recorded builds and without a master."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("TERMITE_SOCKET", raising=False)
    root = tmp_path / "a tree"
    (root / "build").mkdir(parents=True)
    write_history(records_directory(root), HISTORY)
    return root


@pytest.fixture
def ctl(tree: Path) -> Ctl:
    """Return a function that runs termite-ctl in a directory of the tree."""

    def run(*words: str, cwd: str = "") -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "termite.cli.ctl", *words]
        return subprocess.run(command, cwd=tree / cwd, capture_output=True, text=True, check=False, timeout=30)

    return run


def test_last_lists_the_builds_and_shows_one(ctl: Ctl) -> None:
    listed = ctl("last").stdout.splitlines()
    assert [int(line.split()[0]) for line in listed[1:]] == [3, 2, 1]
    assert ctl("last", "2", cwd="build").stdout.startswith("build     2: make")
    assert [build["id"] for build in json.loads(ctl("last", "--json").stdout)] == [3, 2, 1]
    assert len(json.loads(ctl("last", "2", "--json").stdout)["jobs"]) == 60
    assert ctl("last", "--github").stdout.startswith("### termite: make")
    unknown = ctl("last", "7")
    assert unknown.returncode == 100
    assert "kept are 1 to 3" in unknown.stderr


def test_jobs_are_filtered(ctl: Ctl) -> None:
    _, jobs = HISTORY[-1]

    def listed(*words: str) -> set[int]:
        return {json.loads(line)["id"] for line in ctl("jobs", "--json", *words).stdout.splitlines()}

    assert listed() == {job.id for job in jobs}
    assert listed("--here") == {job.id for job in jobs if job.where is Where.HERE}
    assert listed("--worker", "beta") == {job.id for job in jobs if job.worker == "beta"}
    assert listed("--retried") == {job.id for job in jobs if job.attempts}
    assert listed("--failed") >= {job.id for job in jobs if job.has_failed}
    assert listed("file125.c") == {job.id for job in jobs if "file125.c" in job.text}
    assert len(listed("--slowest", "4")) == 4
    assert len(listed("--all")) == 180
    assert ctl("jobs", "--build", "1").stdout.count("\n") == 61
    nothing = ctl("jobs", "--build", "1", "no such words")
    assert (nothing.returncode, nothing.stdout) == (
        0,
        "",
    ) and "none of the 60 recorded jobs of build 1" in nothing.stderr


def test_log_and_why_find_a_job_by_its_number_and_by_its_file(ctl: Ctl, tree: Path) -> None:
    job = next(job for job in HISTORY[1].jobs if job.where is Where.WORKER and job.files)
    name = os.fsdecode(job.files[0])
    for words, cwd in (
        (("log", str(job.id)), ""),
        (("log", name), ""),
        (("log", Path(name).name), "build"),
        (("log", f"{tree}/{name}"), "build"),
        (("why", str(job.id)), ""),
        (("why", name), ""),
    ):
        said = ctl(*words, cwd=cwd)
        assert said.stdout.splitlines()[0] == f"job       {job.id} of build 2", said
    missing = ctl("log", "build/none.o")
    assert missing.returncode == 100
    assert "no recorded job is or wrote build/none.o" in missing.stderr


def test_trace_writes_a_file_as_a_whole(ctl: Ctl, tree: Path) -> None:
    assert ctl("trace", "2", "-o", "t.json").returncode == 0
    assert json.loads((tree / "t.json").read_text())["traceEvents"]
    assert json.loads(ctl("trace", "-o", "-").stdout)["traceEvents"]
    failed = ctl("trace", "-o", "none/t.json")
    assert failed.returncode == 100
    assert "cannot write none/t.json" in failed.stderr
    assert [entry.name for entry in tree.iterdir() if "t.json" in entry.name] == ["t.json"]


def test_a_tree_without_records_and_damaged_records_are_said(ctl: Ctl, tree: Path, tmp_path: Path) -> None:
    newest = max(records_directory(tree).glob("*.records"))
    newest.write_bytes(newest.read_bytes()[:-7])
    said = ctl("jobs")
    assert said.returncode == 0
    assert newest.name in said.stderr
    for file in records_directory(tree).iterdir():
        file.unlink()
    nothing = ctl("last")
    assert nothing.returncode == 100
    assert "no build of" in nothing.stderr


def test_a_job_of_the_last_twenty_builds_is_found_without_reading_them_whole(tree: Path) -> None:
    """Imports decide how long a query takes: none of them may be rich, trio or cryptography."""
    query = (
        "import sys; from termite.cli.ctl import run_words; run_words(['log', '70']);"
        "print([name for name in ('rich', 'trio', 'cryptography', 'asyncio', 'ssl') if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", query], cwd=tree, capture_output=True, text=True, check=True, timeout=30
    )
    assert said.stdout.splitlines()[-1] == "[]"
