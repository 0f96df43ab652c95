"""`termite-ctl last`, `jobs`, `log`, `why` and `trace` read the records of a tree from disk."""

import array
import fcntl
import json
import os
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from termite.cli.places import records_directory
from termite.engine.history.logic.job_record import FailedAttempt, JobRecord, Where
from tests.synthetic_builds import SyntheticBuild, synthetic_build, synthetic_history, write_history

HISTORY = synthetic_history(3, 60)
TERMITE_CTL = Path(sys.executable).with_name("termite-ctl")
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


def test_last_lists_the_builds_and_shows_one(ctl: Ctl, tree: Path) -> None:
    listed = ctl("last").stdout.splitlines()
    assert [int(line.split()[0]) for line in listed[1:]] == [3, 2, 1]
    assert ctl("last", "2", cwd="build").stdout.startswith("build     2: make")
    assert [build["id"] for build in json.loads(ctl("last", "--json").stdout)] == [3, 2, 1]
    assert len(json.loads(ctl("last", "2", "--json").stdout)["jobs"]) == 60
    assert ctl("last", "--github").stdout.startswith("### termite: make")
    write_history(records_directory(tree), [synthetic_build(0, 4)])
    assert ctl("jobs").stderr == "termite-ctl: no job of build 4 is recorded\n"
    write_history(records_directory(tree), [synthetic_build(9, 5)._replace(jobs=[])])
    assert "termite-ctl: records of build 5: 9 of 9 jobs have none: " in ctl("jobs").stderr
    unknown = ctl("last", "7")
    assert unknown.returncode == 100
    assert "kept are 1 to 5" in unknown.stderr


@pytest.mark.parametrize("words", [("jobs", "-all"), ("trace", "-o", "-"), ("jobs", "-help"), ("help",)])
def test_an_output_that_cannot_be_written_is_no_error_of_ours(tree: Path, words: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "termite.cli.ctl", *words]
    with open("/dev/full", "wb") as full:
        said = subprocess.run(command, cwd=tree, stdout=full, stderr=subprocess.PIPE, check=False, timeout=30)
    assert (said.returncode, said.stderr) == (
        100, b"termite-ctl: the output cannot be written: No space left on device\n",
    )  # fmt: skip


def test_a_terminal_of_another_encoding_shows_any_command(tree: Path) -> None:
    odd = JobRecord(id=181, build=4, text="cc \u6f22 \xe9.c", cwd=str(tree), where=Where.HERE)
    write_history(records_directory(tree), [synthetic_build(0, 4)._replace(jobs=[odd])])
    for encoding, shown in (
        ("ascii", rb"cc \u6f22 \xe9.c"),
        ("latin-1", b"cc \\u6f22 \xe9.c"),
        ("utf-8", "漢 é.c".encode()),
    ):
        command = [sys.executable, "-m", "termite.cli.ctl", "log", "181"]
        env = {**os.environ, "PYTHONIOENCODING": encoding}
        said = subprocess.run(command, cwd=tree, env=env, capture_output=True, check=False, timeout=30)
        assert said.returncode == 0 and shown in said.stdout, said


def is_full(pipe: int) -> bool:
    """Return whether a pipe has as many bytes as it takes, but for a page."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0] > fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) - os.sysconf("SC_PAGE_SIZE")


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_reader_that_does_not_block_gets_the_whole_output(tree: Path, ctl: Ctl) -> None:
    write_history(records_directory(tree), [synthetic_build(400, 4)])
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    command = [sys.executable, "-m", "termite.cli.ctl", "jobs", "-json"]
    with subprocess.Popen(command, cwd=tree, stdout=writer, stderr=subprocess.PIPE) as listing:
        deadline_s = time.monotonic() + 30
        while not (is_full(reader) and state_of(listing.pid) == "S"):
            assert time.monotonic() < deadline_s and listing.poll() is None
            time.sleep(0.01)
        os.close(writer)
        with open(reader, "rb") as whole:
            lines = whole.read().splitlines()
        assert listing.wait(30) == 0 and len(lines) == 400


def test_jobs_are_filtered(ctl: Ctl) -> None:
    _, jobs = HISTORY[-1]

    def listed(*words: str) -> set[int]:
        return {json.loads(line)["id"] for line in ctl("jobs", "--json", *words).stdout.splitlines()}

    assert listed() == {job.id for job in jobs}
    assert listed("--local") == {job.id for job in jobs if job.where is Where.HERE}
    tried = {job.id for job in jobs if "beta" in (job.worker, *(attempt.worker for attempt in job.attempts))}
    assert listed("--worker", "beta") == tried
    assert listed("--retried") == {job.id for job in jobs if job.attempts}
    assert listed("--failed") >= {job.id for job in jobs if job.has_failed}
    assert listed("file125.c") == {job.id for job in jobs if "file125.c" in job.text}
    assert len(listed("--slowest", "4")) == 4
    assert len(listed("--all")) == 180
    assert ctl("jobs", "--build", "1").stdout.count("\n") == 61
    misspelt = ctl("jobs", "--worker", "betta")
    assert misspelt.returncode == 100 and "there is no worker betta: write beta" in misspelt.stderr
    assert ctl("jobs", "--slowest", "-3").returncode == 100
    nothing = ctl("jobs", "--build", "1", "no such words")
    assert (nothing.returncode, nothing.stdout) == (
        0,
        "",
    ) and "none of the 60 recorded jobs of build 1" in nothing.stderr


def test_a_worker_of_another_build_is_no_misspelt_one(ctl: Ctl, tree: Path) -> None:
    attempts = (FailedAttempt("w1", "lost"),)
    lost = JobRecord(id=181, build=4, text="cc", cwd="", where=Where.WORKER, worker="w2", attempts=attempts)
    write_history(records_directory(tree), [synthetic_build(0, 4)._replace(jobs=[lost])])
    assert json.loads(ctl("jobs", "--worker", "w1", "--json").stdout)["id"] == 181
    other = ctl("jobs", "--worker", "w1", "--build", "2")
    assert (other.returncode, other.stdout) == (0, "") and "recorded jobs of build 2 matches" in other.stderr
    misspelt = ctl("jobs", "--worker", "w3", "--build", "2")
    assert misspelt.returncode == 100 and "write w" in misspelt.stderr


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
    unknown = ctl("why", "9999999")
    assert unknown.returncode == 100 and "no job 9999999 is recorded" in unknown.stderr
    unknown = ctl("log", "9999999")
    assert unknown.returncode == 100 and "termite-ctl top those that run now" in unknown.stderr
    assert ctl("log", "9" * 5000).returncode == 100
    missing = ctl("log", "build/none.o")
    assert missing.returncode == 100
    assert "no recorded job wrote build/none.o" in missing.stderr


def test_a_file_that_was_written_later_names_those_who_may_have_done_it(ctl: Ctl, tree: Path) -> None:
    (tree / "deep").mkdir()
    now_s = time.time()
    worker = JobRecord(
        id=181, build=4, text="cc -c x.c", cwd=str(tree / "deep"), where=Where.WORKER, worker="w", home_s=now_s - 50,
        files=(b"deep/x.o",),
    )  # fmt: skip
    here = JobRecord(
        id=182, build=5, text="cc -c x.c -o x.o", cwd=str(tree / "deep"), where=Where.HERE, sent_s=now_s - 21,
        home_s=now_s - 19,
    )  # fmt: skip
    linker = replace(here, id=183, text="ld deep/x.o", cwd=str(tree), sent_s=now_s - 9, home_s=now_s - 8)
    archiver = replace(here, id=184, text="ar rc x.a x.o", sent_s=now_s - 19.9, home_s=now_s - 18)
    later = [here, linker, archiver]
    builds = [synthetic_build(0, 4)._replace(jobs=[worker]), synthetic_build(0, 5)._replace(jobs=later)]
    write_history(records_directory(tree), builds)
    made = tree / "deep" / "x.o"
    assert "but       the file is no longer there" in ctl("log", "deep/x.o").stdout
    made.touch()
    os.utime(made, (now_s - 50, now_s - 50))
    assert "but " not in ctl("log", "deep/x.o").stdout, "it is as the job has left it"
    os.utime(made, (now_s - 20, now_s - 20))
    for words, cwd in (("log", "x.o"), "deep"), (("log", "x.o"), ""), (("why", "deep/x.o"), ""):
        lines = ctl(*words, cwd=cwd).stdout.splitlines()
        assert lines[0] == "job       181 of build 4"
        at = lines.index("but       the file was written later, perhaps by a command that ran on this machine:")
        assert lines[at + 1 :] == ["          job 182 of build 5: cc -c x.c -o x.o"], "the linker ran later"
    assert "the file was written later" in ctl("log", "-json", "deep/x.o").stderr
    os.utime(made, (now_s, now_s))
    assert "job 182" in ctl("log", "deep/x.o").stdout, "nobody ran then, so all are named who name the file"


def test_a_file_without_a_record_names_what_may_be_meant(ctl: Ctl, tree: Path) -> None:
    here = JobRecord(id=181, build=4, text="cc -c y.c -o y.o", cwd=str(tree), where=Where.HERE, home_s=1.0)
    two = replace(here, id=182, text="cc", where=Where.WORKER, worker="w", files=(b"a/z.o", b"b/z.o"))
    write_history(records_directory(tree), [synthetic_build(0, 4)._replace(jobs=[here, two])])
    here_only = ctl("log", "y.o")
    assert here_only.returncode == 100 and "may have written it: termite-ctl log 181" in here_only.stderr
    several = ctl("log", "z.o", cwd="build")
    assert several.returncode == 100 and "files of that name: ../a/z.o, ../b/z.o" in several.stderr


def test_trace_writes_a_file_as_a_whole(ctl: Ctl, tree: Path) -> None:
    assert ctl("trace", "2", "-o", "t.json").returncode == 0
    assert json.loads((tree / "t.json").read_text())["traceEvents"]
    assert json.loads(ctl("trace", "-o", "-").stdout)["traceEvents"]
    failed = ctl("trace", "-o", "none/t.json")
    assert failed.returncode == 100
    assert "cannot write none/t.json" in failed.stderr
    assert [entry.name for entry in tree.iterdir() if "t.json" in entry.name] == ["t.json"]


def test_trace_keeps_what_the_file_is(ctl: Ctl, tree: Path) -> None:
    """With `-o /dev/null`, root would otherwise replace the device by a file."""
    kept = tree / "kept.json"
    kept.write_text("x")
    kept.chmod(0o640)
    (tree / "link.json").symlink_to("kept.json")
    assert ctl("trace", "-o", "link.json").returncode == 0
    assert (tree / "link.json").is_symlink() and kept.stat().st_mode & 0o777 == 0o640
    assert json.loads(kept.read_text())["traceEvents"]
    os.mkfifo(tree / "fifo")
    with subprocess.Popen(["cat", "fifo"], cwd=tree, stdout=subprocess.PIPE) as reader:
        assert ctl("trace", "-o", "fifo").returncode == 0
        assert json.loads(reader.communicate()[0])["traceEvents"]
    assert (tree / "fifo").is_fifo()
    device = Path("/dev/full")  # an attempt that must fail changes nothing
    before = device.stat()
    failed = ctl("trace", "-o", str(device))
    assert failed.returncode == 100 and "cannot write /dev/full: No space left" in failed.stderr
    assert (device.stat().st_ino, device.stat().st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.needs_root("makes a link of another user")
def test_trace_follows_no_link_of_another_user(ctl: Ctl, tree: Path) -> None:
    """In a directory like /tmp he may put one to a start file of our shell."""
    private = tree / "private"
    private.write_text("the user's own file")
    (tree / "t.json").symlink_to(private)
    os.lchown(tree / "t.json", 65534, 65534)
    failed = ctl("trace", "-o", "t.json")
    assert failed.returncode == 100 and "cannot write t.json: it is another user's link" in failed.stderr
    assert private.read_text() == "the user's own file" and (tree / "t.json").is_symlink()


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
    """Imports decide how long a query takes: none of them may be rich, trio or the like."""
    query = (
        "import sys; from termite.cli.ctl import run_words; run_words(['log', '70']);"
        "slow = ('rich', 'trio', 'cryptography', 'asyncio', 'ssl', 'termite.engine.recall');"
        "print([name for name in slow if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", query], cwd=tree, capture_output=True, text=True, check=True, timeout=30
    )
    assert said.stdout.splitlines()[-1] == "[]"


BUILDS, JOBS = 20, 1000  # as many builds as are kept, and with the texts below as many bytes
FIRST_BUILD, FIRST_JOB = 4, 181  # after those of the tree


def large_history() -> Iterator[SyntheticBuild]:
    """Yield builds whose records are together about as large as what is kept: 64 MiB."""
    for at in range(BUILDS):
        build, jobs = synthetic_build(JOBS, FIRST_BUILD + at, FIRST_JOB + at * JOBS)
        flags, output = " -DNAME=1234567890" * 60, b"a line of what it printed\n" * 78
        yield SyntheticBuild(
            build, [replace(job, text=job.text + flags, output=output, output_bytes=len(output)) for job in jobs]
        )


def cheapest_s(tree: Path, *words: str) -> float:
    """Return the CPU time of a command, of which the least of five runs counts."""
    return min(cpu_of(tree, words) for _ in range(5))


def cpu_of(tree: Path, words: Sequence[str]) -> float:
    with subprocess.Popen([TERMITE_CTL, *words], cwd=tree, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return used.ru_utime + used.ru_stime


def test_any_job_of_a_full_history_is_found_within_three_times_the_time_of_version(tree: Path) -> None:
    """CPU time, because a busy machine makes other times longer."""
    write_history(records_directory(tree), large_history())
    sizes = [path.stat().st_size for path in records_directory(tree).iterdir()]
    assert 50 << 20 < sum(sizes) < 70 << 20, sum(sizes)
    jobs = [job for job in synthetic_build(JOBS, FIRST_BUILD, FIRST_JOB)[1] if job.files]
    oldest, last = jobs[40].id, FIRST_JOB + BUILDS * JOBS - 40
    version_s = cheapest_s(tree, "--version")
    for words in (
        ("log", str(oldest)),
        ("log", str(last)),
        ("why", str(oldest)),
        ("log", os.fsdecode(jobs[40].files[0])),
        ("jobs", "-failed"),
        ("jobs", f"file{last}.c"),
    ):
        assert cheapest_s(tree, *words) < 3 * version_s, words
