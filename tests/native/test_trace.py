"""The trace of a job has each path that its system calls name, however they name it."""

import enum
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hostile.filters import Verdict, judge, read_filters
from tests.native.sandboxes import USERS, Job, Sandboxes, copy_libraries, sandboxes_of, small_base


class K(enum.IntFlag):
    """A kind is what a job may learn from a path, or do to it: `enum access_kind` of the tracer."""

    READ = 1
    WRITE = 1 << 1
    CREATE = 1 << 2
    EXCL = 1 << 3
    TRUNC = 1 << 4
    STAT = 1 << 5
    ACCESS = 1 << 6
    READLINK = 1 << 7
    EXEC = 1 << 8
    LIST = 1 << 9
    CHDIR = 1 << 10
    UNLINK = 1 << 11
    MAKE = 1 << 12
    META = 1 << 13
    OPATH = 1 << 14
    NOFOLLOW = 1 << 15
    MOVED = 1 << 16
    FOLLOW = 1 << 17


HOME = "/home/me/"
TABLE = Path(__file__).parents[2] / "native/sandbox/trace/path_calls.h"
GAPS = {"mount": 1, "chroot": 2, "setns": 4, "filter": 8}
X86_64, I386 = 0xC000003E, 0x40000003
RETURN_TRACE, RETURN_EPERM = "0x7ff00000", "0x00050001"


@pytest.fixture(scope="module")
def base(sandbox_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("trace")
    gcc = ["gcc", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-O1", "-pthread"]
    source = Path(__file__).with_name("trace_traps.c")
    subprocess.run([*gcc, "-static", "-no-pie", source, "-o", place / "trace_traps"], check=True)
    (place / "leak.c").write_text("#include <stdlib.h>\nint main(int n, char **v) { return malloc(n) == (void *)v; }\n")
    subprocess.run([*gcc, "-fsanitize=leak", place / "leak.c", "-o", place / "leak"], check=True)
    with small_base(sandbox_program) as base:
        for name in ("trace_traps", "leak"):
            shutil.copy(place / name, base / "root/usr/bin")
        copy_libraries(str(place / "leak"), base / "root")
        yield base


@pytest.fixture(scope="module", params=USERS)
def sandboxes(base: Path, request: pytest.FixtureRequest) -> Sandboxes:
    return replace(sandboxes_of(base, request.param), traced="exact")


def spring(sandboxes: Sandboxes, *trap: str) -> Job:
    """Run a trap, whose trace must be whole."""
    job = sandboxes.run(["trace_traps", *trap], own="1000:1000")
    assert job.status == 0, job
    return job


def uses(job: Job, below: str = HOME) -> dict[str, K]:
    """Return how a job has used the paths below a directory, by their names there."""
    return {path.removeprefix(below): K(kinds) for _, kinds, path in job.trace if path.startswith(below)}


def assert_whole(job: Job) -> None:
    assert ("lost" in job.fields, "gaps" in job.fields) == (False, False), job.fields


def test_each_call_that_a_signal_ends_is_counted(sandboxes: Sandboxes) -> None:
    job = spring(sandboxes, "signals")
    ended = int(job.out)
    assert int(job.fields.get("lost", "0")) == ended
    assert int(job.fields["calls"]) + ended >= 20000
    assert "signals-file" in uses(job)


def test_a_trace_outlives_processes_that_are_killed_in_a_call(sandboxes: Sandboxes) -> None:
    assert {"deaths-file", "after-deaths"} <= uses(spring(sandboxes, "deaths")).keys()


def test_a_process_may_be_stopped_in_a_call(sandboxes: Sandboxes) -> None:
    job = spring(sandboxes, "stops")
    assert (job.out, uses(job)) == ("0\n", {"stops-file": K.ACCESS | K.FOLLOW})


def test_a_job_cannot_kill_its_tracer(sandboxes: Sandboxes) -> None:
    job = spring(sandboxes, "kill-all")
    assert_whole(job)
    assert uses(job).keys() == {"before-kill", "after-kill"}


def test_the_memory_of_an_undumpable_process_is_read(sandboxes: Sandboxes) -> None:
    job = spring(sandboxes, "undumpable")
    assert_whole(job)
    assert "undumpable-file" in uses(job)


def test_processes_are_traced_however_they_are_made(sandboxes: Sandboxes) -> None:
    job = spring(sandboxes, "children")
    assert_whole(job)
    assert uses(job).keys() == {"of-vfork", "of-clone3", "of-spawn", "of-orphan"}


def test_processes_in_namespaces_of_their_own_are_traced(sandboxes: Sandboxes) -> None:
    script = "cat in-namespaces; unshare -r cat in-two; echo $$"
    job = sandboxes.run(["unshare", "-rpf", "sh", "-c", script], own="1000:1000")
    assert_whole(job)
    assert job.out == "1\n"
    assert {"in-namespaces", "in-two"} == uses(job).keys()


def test_many_threads_lose_no_path(sandboxes: Sandboxes) -> None:
    job = spring(sandboxes, "threads")
    assert_whole(job)
    assert uses(job).keys() == {f"many-{thread}-{i}" for thread in range(50) for i in range(100)}


def test_a_relative_name_begins_in_the_directory_of_its_thread(sandboxes: Sandboxes) -> None:
    """The directory above is that of no link, but "x/.." may lead elsewhere."""
    job = spring(sandboxes, "directories")
    assert_whole(job)
    assert uses(job).keys() == {
        "below",
        "below/own",
        "below/own/of-own",
        "below/of-below",
        "of-above",
        "below/own/x/../y",
    }


def test_a_directory_that_looks_removed_is_none(sandboxes: Sandboxes) -> None:
    job = spring(sandboxes, "removed")
    assert_whole(job)
    assert uses(job).keys() == {"gone", "kept (deleted)", "kept (deleted)/in-kept"}


def test_names_are_read_whole_or_not_at_all(sandboxes: Sandboxes) -> None:
    job = spring(sandboxes, "memory")
    assert_whole(job)
    assert job.out == "-1 36\n-1 14\n", "ENAMETOOLONG and EFAULT as without a trace"
    long = max(uses(job), key=len)
    assert ("at-the-end" in uses(job), len(long), long[-4:]) == (True, 4084, "/end")


def test_names_begin_at_descriptors_wherever_they_come_from(sandboxes: Sandboxes) -> None:
    job = spring(sandboxes, "descriptors")
    assert_whole(job)
    below = {"of-path", "sub/of-sent", "sub/of-fchdir", "sub/of-cwd", "of-root", "of-proc", "of-dev"}
    assert below < uses(job, f"{HOME}dir/").keys()
    assert "of-slash" in uses(job, "/")


def test_files_are_executed_by_descriptor(sandboxes: Sandboxes) -> None:
    job = spring(sandboxes, "executed")
    assert_whole(job)
    assert job.out == "executed\n0\n"
    programs = uses(job, "/usr/bin/")
    assert (programs["true"], programs["echo"]) == (K.READ | K.FOLLOW, K.OPATH | K.STAT | K.EXEC | K.FOLLOW)


def test_names_of_sockets_are_paths(sandboxes: Sandboxes) -> None:
    job = spring(sandboxes, "sockets")
    assert_whole(job)
    assert uses(job) == {"socket-bound": K.MAKE | K.UNLINK | K.NOFOLLOW, "socket-tried": K.ACCESS | K.FOLLOW}


def test_each_kind_of_use_is_told(sandboxes: Sandboxes) -> None:
    job = spring(sandboxes, "kinds")
    assert_whole(job)
    made = K.CREATE | K.TRUNC | K.FOLLOW
    assert uses(job) == {
        "k-read": K.READ | K.FOLLOW,
        "k-create": made | K.UNLINK | K.MOVED | K.NOFOLLOW,
        "k-excl": K.EXCL | K.READ | K.WRITE | K.UNLINK | K.FOLLOW | K.NOFOLLOW,
        "k-append": K.WRITE | K.FOLLOW,
        "k-path": K.OPATH | K.STAT | K.FOLLOW,
        "k-check": K.ACCESS | K.FOLLOW,
        "k-stat": K.STAT | K.FOLLOW,
        "k-link": K.READLINK | K.NOFOLLOW,
        "k-meta": K.META | K.FOLLOW,
        "k-make": K.MAKE | K.NOFOLLOW,
        "k-moved": K.MAKE | K.NOFOLLOW,
        "k-exec": K.EXEC | K.FOLLOW,
    }
    assert {path: first for first, _, path in job.trace}[f"{HOME}k-create"] == made


def test_calls_of_32_bit_programs_are_traced(sandboxes: Sandboxes) -> None:
    job = spring(sandboxes, "narrow")
    assert_whole(job)
    assert uses(job).keys() == {"narrow-open", "narrow-access", "narrow-mkdir"}


@pytest.mark.parametrize(("size", "least", "most"), [(16, 1 << 17, 1 << 17), (4000, 4000, 4200)])
def test_a_set_of_paths_has_limits_for_their_number_and_their_bytes(
    tmp_path: Path, size: int, least: int, most: int
) -> None:
    """A path more is a gap, and the first ones stay."""
    source, program = Path(__file__).with_name("fill_path_set.c"), tmp_path / "fill"
    subprocess.run(["gcc", "-O1", "-D_GNU_SOURCE", "-I", TABLE.parents[1], source, "-o", program], check=True)
    text = subprocess.run([program, str(size)], capture_output=True, check=True).stdout
    count = int.from_bytes(text[:4], sys.byteorder)
    paths = text[4 + 8 * count :].split(b"\0")
    assert least <= count <= most
    assert (len(paths), len(set(paths[:-1])), {len(path) for path in paths[:-1]}) == (count + 1, count, {size})
    assert len(text) < 32 * 1024 * 1024, "what a mirror reads"


@pytest.mark.parametrize("what", ["mount", "umount", "chroot", "setns"])
def test_what_changes_the_meaning_of_names_leaves_a_gap(sandboxes: Sandboxes, what: str) -> None:
    assert int(spring(sandboxes, "namespace", what).fields["gaps"]) == GAPS.get(what, GAPS["mount"])


def test_a_tracer_of_the_jobs_own_that_misses_calls_is_a_gap(sandboxes: Sandboxes) -> None:
    assert int(spring(sandboxes, "filter", RETURN_TRACE).fields["gaps"]) == GAPS["filter"]


def test_a_filter_of_the_jobs_own_goes_before_the_trace(sandboxes: Sandboxes) -> None:
    """A call that it ends does not happen, so nothing is learnt from the path."""
    job = spring(sandboxes, "filter", RETURN_EPERM)
    assert_whole(job)
    assert (job.out, uses(job)) == ("0 1\n", {})


def test_a_leak_is_found_although_the_job_is_traced(sandboxes: Sandboxes) -> None:
    """The sanitizer stops the threads of its process by ptrace(2), which a tracer could forbid."""
    job = sandboxes.run(["leak"])
    assert "detected memory leaks" in job.err, job
    assert "fatal" not in job.err


def test_a_program_that_cannot_be_executed_is_reported(sandboxes: Sandboxes) -> None:
    job = sandboxes.run(["absent-program"])
    assert (job.fields["exec"], uses(job, "/usr/bin/")) == ("2", {"absent-program": K.EXEC | K.FOLLOW})


def test_a_job_that_is_killed_has_ended(sandboxes: Sandboxes) -> None:
    job = sandboxes.sh("echo ready; cat f; sleep 100", kill=15)
    assert job.fields["stopped"] == "1"


def test_compilers_ask_less(sandboxes: Sandboxes) -> None:
    """The calls that are left out concern descriptors, and links that the names lead through."""
    argv = ["sh", "-c", "cat /etc/x; realpath /usr/bin/cat; cat"]
    exact, less = (sandboxes.run(argv, traced=mode) for mode in ("exact", "compiler"))
    assert 0 < int(less.fields["calls"]) < int(exact.fields["calls"])
    assert uses(less, "/").keys() == uses(exact, "/").keys()


def test_a_sandbox_takes_only_jobs_of_its_kind(sandboxes: Sandboxes) -> None:
    job = sandboxes.run(["true"], {"trace": "2"}, traced="exact")
    assert "another kind of trace" in job.fields["error"]


def test_a_traced_job_does_what_another_one_does(sandboxes: Sandboxes) -> None:
    script = "umask; ulimit -n; pwd; echo 1 >a; cat <a; ls; cat /proc/self/status | grep -v Seccomp | wc -l; exit 7"
    traced, other = sandboxes.sh(script), replace(sandboxes, traced="").sh(script)
    assert (traced.out, traced.err, traced.status, traced.upper) == (other.out, other.err, 7, other.upper)


@pytest.mark.parametrize("option", ["--trace=", "--trace=all", "--trace", "--network-of=", "--network-of=77"])
def test_options_that_mean_nothing_are_refused(sandbox_program: Path, option: str) -> None:
    run = subprocess.run([sandbox_program, "serve", option, "0", "/"], capture_output=True, check=False)
    assert (run.returncode, run.stderr.startswith(b"usage:")) == (100, True)


def test_this_machine_can_trace(sandbox_program: Path) -> None:
    run = subprocess.run([sandbox_program, "trace"], capture_output=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


def test_below_another_listener_no_job_can_be_traced(sandbox_program: Path, tmp_path: Path) -> None:
    source, program = Path(__file__).with_name("watched_calls.c"), tmp_path / "watched_calls"
    subprocess.run(["gcc", "-D_GNU_SOURCE", source, "-o", program], check=True)
    run = subprocess.run([program, "below-listener", sandbox_program, "trace"], capture_output=True, check=False)
    assert (run.returncode, b"own listener" in run.stderr) == (100, True), run


def numbers_in(header: str) -> dict[str, int]:
    text = Path(f"/usr/include/x86_64-linux-gnu/asm/{header}").read_text()
    return {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", text)}


@pytest.mark.parametrize(("column", "header"), [(0, "unistd_64.h"), (1, "unistd_32.h")])
def test_the_table_has_the_kernels_numbers(column: int, header: str) -> None:
    """A call that is newer than this machine's headers is not checked."""
    known = numbers_in(header)
    rows = re.findall(r"^    \{\{(-?\d+), (-?\d+)\},.*/\* (.*) \*/$", TABLE.read_text(), re.MULTILINE)
    given = {names: int(row[column]) for *row, names in rows if row[column] != "-1"}
    wrong = {names for names, number in given.items() if number not in {known.get(name) for name in names.split(", ")}}
    assert len(given) > 70
    assert {names for names in wrong if given[names] in known.values()} == set()


@pytest.mark.parametrize("mode", ["exact", "compiler"])
def test_the_filter_asks_about_the_calls_of_the_table_and_allows_all_others(tmp_path: Path, mode: str) -> None:
    """Only the calls of the table are checked, although it asks about watched calls as well."""
    sandbox, program = TABLE.parents[1], tmp_path / "dump"
    sources = [
        Path(__file__).with_name("dump_trace_filter.c"),
        sandbox / "protection/call_filter.c",
        sandbox / "report.c",
    ]
    subprocess.run(["gcc", "-D_GNU_SOURCE", "-I", sandbox, *sources, "-o", program], check=True)
    dumped = subprocess.run([program, *(["compiler"] if mode == "compiler" else [])], capture_output=True, check=True)
    (steps,) = read_filters(dumped.stdout)
    rows = re.findall(r"^    \{\{(-?\d+), (-?\d+)\}, (\w+),", TABLE.read_text(), re.MULTILINE)
    for column, arch in enumerate((X86_64, I386)):
        traced = {int(row[column]): row[2] for row in rows if int(row[column]) >= 0}
        for number in range(600):
            verdict, how = judge(steps, arch, number), traced.get(number, "")
            if how in ("FILTERS", "CONTROLS"):
                installs = 22 if how == "CONTROLS" else 1  # PR_SET_SECCOMP, SECCOMP_SET_MODE_FILTER
                assert (verdict.is_watched, judge(steps, arch, number, (installs,)).is_watched) == (False, True)
            elif how:
                assert verdict.is_watched, (arch, number)
            else:
                assert verdict.error == 0, (arch, number)
    assert judge(steps, X86_64, 1) == Verdict(0, False), "write(2) passes without a look at its arguments"
    realpath, fstat = (0, 0, 1023), (5, 0, 0, 0x1000)
    allowed = {
        judge(steps, X86_64, number, arguments).is_watched for number, arguments in ((89, realpath), (262, fstat))
    }
    assert allowed == {mode == "exact"}
