"""A job in its sandbox, for each user that a worker may be: its view, its powers and its end."""

import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.native.sandboxes import USERS, Sandboxes, is_sanitized, sandboxes_of, small_base

NATIVE = Path(__file__).parents[2] / "native"


# -- how it ends ------------------------------------------------------------------------------------------------------


def test_a_command_says_what_it_says_and_ends_as_it_ends(sandboxes: Sandboxes) -> None:
    job = sandboxes.sh("echo out; echo err >&2; exit 77")
    assert (job.code, job.status, job.out, job.err) == (0, 77, "out\n", "err\n")


@pytest.mark.parametrize("name", ["TERM", "INT", "KILL", "SEGV", "PIPE", "HUP", "USR1"])
def test_a_death_by_signal_is_told(sandboxes: Sandboxes, name: str) -> None:
    assert sandboxes.sh(f"kill -{name} $$").status == -signal.Signals[f"SIG{name}"]


def test_usage_and_times_are_told(sandboxes: Sandboxes) -> None:
    job = sandboxes.sh("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done")
    times = {key: int(job.fields[key]) for key in ("started_ns", "ended_ns", "user_us", "system_us", "maxrss_kb")}
    assert times["ended_ns"] - times["started_ns"] > 1_000_000
    assert times["user_us"] > 1000
    assert times["maxrss_kb"] > 500


def test_children_left_behind_do_not_confuse_the_end(sandboxes: Sandboxes) -> None:
    job = sandboxes.sh("(sleep 0.01; exit 3) & (setsid true &); (exit 5) & sleep 0.05; exit 4")
    assert job.status == 4


def test_what_is_left_running_is_killed_and_holds_nothing_open(sandboxes: Sandboxes) -> None:
    late = "(while :; do echo y; sleep 0.01; done >late &)"
    job = sandboxes.sh(f"sleep 1000 & setsid sleep 1000 & trap '' TERM HUP; {late} ; echo started")
    assert (job.status, job.out) == (0, "started\n")  # the driver has read to the end of both pipes


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_killing_the_sandbox_kills_the_job_and_tells_no_status(sandboxes: Sandboxes, how: int) -> None:
    job = sandboxes.sh("trap '' TERM; (sleep 1000 &); echo ready; sleep 1000", kill=how)
    assert "status" not in job.fields  # the driver has seen it end


def test_a_job_does_not_need_who_has_made_its_sandbox(sandboxes: Sandboxes) -> None:
    assert sandboxes.run(["sh", "-c", "echo out; exit 3"], lone=True).status == 3


def test_a_command_that_cannot_be_executed_is_told_by_errno(sandboxes: Sandboxes) -> None:
    assert sandboxes.run(["nosuch"]).fields == {"exec": "2"}
    assert sandboxes.run(["/usr/bin/nosuch"]).fields == {"exec": "2"}
    assert sandboxes.run(["/usr"]).fields == {"exec": "13"}
    assert sandboxes.run(["x"], {"search": "0", "exe": "sh"}).fields == {"exec": "2"}


def test_a_script_without_interpreter_runs_only_where_execvp_would_run_it(sandboxes: Sandboxes, base: Path) -> None:
    script = base / "root/usr/bin/script"
    script.write_text("echo script $1\n")
    script.chmod(0o755)
    assert sandboxes.run(["script", "x"]).out == "script x\n"
    assert sandboxes.run(["script"], {"search": "0", "exe": "/bin/script"}).fields == {"exec": "8"}


def test_the_search_is_done_in_the_jobs_own_path(sandboxes: Sandboxes) -> None:
    assert sandboxes.run(["true"], env={"PATH": "/nowhere"}).fields == {"exec": "2"}
    assert sandboxes.run(["true"], env={}).status == 0  # execvp, too, has a default for PATH


# -- what it is given -------------------------------------------------------------------------------------------------


def test_arguments_and_environment_arrive_byte_by_byte(sandboxes: Sandboxes) -> None:
    words = ["cat", "/proc/self/cmdline", "/proc/self/environ"]
    odd = {"A": "1=2", "EMPTY": "", "LATIN": "\xff\xfe", "LINES": "a\nb"}
    job = sandboxes.run(words, env=odd)
    assert job.out == "\0".join(words) + "\0" + "".join(f"{key}={value}\0" for key, value in odd.items())


def test_large_arguments_and_environments_arrive_whole(sandboxes: Sandboxes) -> None:
    words = ["sh", "-c", "echo $# ${#1} ${#BIG}", "sh", *["x" * 100_000] * 9]
    assert sandboxes.run(words, env={"PATH": "/bin", "BIG": "y" * 120_000}).out == "9 100000 120000\n"
    assert sandboxes.run(["echo", "small"], memory=True).out == "small\n"


def test_ids_umask_working_directory_and_host_name_are_the_submitters(sandboxes: Sandboxes) -> None:
    job = sandboxes.sh("id -G; id -u; id -g; umask; pwd; hostname", uid="1234", gid="100", umask="027", hostname="home")
    groups, *others = job.out.splitlines()
    # The further groups of an ordinary user who runs the worker have no number inside.
    assert set(groups.split()) - {"65534"} == {"100"}
    assert others == ["1234", "100", "0027", "/home/me", "home"]


def test_a_host_name_too_long_for_the_kernel_is_cut(sandboxes: Sandboxes) -> None:
    assert sandboxes.sh("hostname", hostname="h" * 100).out == "h" * 64 + "\n"


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_a_container_that_forbids_the_host_name_runs_jobs(sandboxes: Sandboxes, base: Path, error: str) -> None:
    forbid = ("/usr/bin/python3", str(base / "forbid_calls.py"), error, "sethostname")
    confined = replace(sandboxes, enter=(*forbid, *sandboxes.enter))
    assert confined.sh("hostname", hostname="home").out == os.uname().nodename + "\n"


def test_stdin_comes_from_the_mirror_or_as_it_is(sandboxes: Sandboxes, base: Path) -> None:
    (base / "stdin").mkdir(exist_ok=True)
    (base / "stdin/7").write_text("from the mirror")
    job = sandboxes.sh("cat", stdin="stdin/7")
    assert (job.out, job.fields["stdin_offset"]) == ("from the mirror", "15")
    job = sandboxes.sh("dd bs=2 count=1", stdin="stdin/7", stdin_offset="5")
    assert (job.out, job.fields["stdin_offset"]) == ("th", "7")
    job = sandboxes.sh("cat; echo end")
    assert (job.out, "stdin_offset" in job.fields) == ("end\n", False)


def test_where_stdin_was_left_is_told_of_a_killed_job_too(sandboxes: Sandboxes, base: Path) -> None:
    (base / "stdin").mkdir(exist_ok=True)
    (base / "stdin/8").write_text("ready\nnot read")
    job = sandboxes.sh("dd bs=6 count=1; sleep 100", stdin="stdin/8", kill=signal.SIGTERM)
    assert job.fields == {"stdin_offset": "6"}


def test_a_closed_stdin_is_closed(sandboxes: Sandboxes) -> None:
    assert sandboxes.run(["ls", "/proc/self/fd"], {"stdin_closed": "1"}).out.split() == ["0", "1", "2"]  # 0: ls's own


def test_signals_are_as_in_a_fresh_login(sandboxes: Sandboxes) -> None:
    job = sandboxes.run(["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"])
    # The C library reserves the signals 32 and 33 and lets nobody set them. If the caller of the
    # tests ignores them, the job does so, too.
    assert not any(int(line.split()[1], 16) & ~0x1_8000_0000 for line in job.out.splitlines())


@pytest.mark.attack
def test_nothing_is_open_but_stdio(sandboxes: Sandboxes) -> None:
    assert sandboxes.run(["ls", "/proc/self/fd"]).out.split() == ["0", "1", "2", "3"]  # 3: ls reading the directory


def test_the_limit_of_open_files_is_the_usual_one(sandboxes: Sandboxes) -> None:
    job = sandboxes.sh("ulimit -Sn; ulimit -n $(ulimit -Hn) && echo raised; ulimit -c")
    assert job.out.split() == ["1024", "raised", "0"]


def test_it_has_the_limits_of_its_submitter(sandboxes: Sandboxes) -> None:
    show = (
        "ulimit -t; ulimit -f; ulimit -s; ulimit -Hs; ulimit -c; ulimit -c unlimited; ulimit -c; ulimit -n; ulimit -v"
    )
    limits = "0:1000:2000,1:51200:-,3:1048576:2097152,4:0:-,7:500:600,9:-:-"
    job = sandboxes.sh(show, limits=limits)
    assert job.out.split() == ["1000", "100", "1024", "2048", "0", "unlimited", "500", "unlimited"]
    assert sandboxes.sh("ulimit -n 601", limits=limits).status != 0


def test_a_soft_limit_that_is_too_high_here_sends_the_command_home(sandboxes: Sandboxes) -> None:
    most = {"nofile": "2000", "fsize": "4000000", "cpu": "5000", "core": "0"}
    allowed = "0:5000:-,1:4000000:-,3:16777216:-,4:0:-,7:2000:-"
    too_high = {"t": "0:5001:-", "f": "1:4000001:-", "s": "3:16777217:-", "n": "7:2001:-"}
    if not is_sanitized("termite-sandbox"):  # the sanitizer needs more memory than any limit
        most |= {"as": "8000000000", "data": "4000000000"}
        allowed += ",2:4000000000:-,9:8000000000:-"
        too_high |= {"d": "2:4000000001:-", "v": "9:8000000001:-"}
    if not Path("/proc/sys/kernel/core_pattern").read_text().startswith(("|", "@")):  # then no core is kept anyway
        too_high["c"] = "4:1:-"
    words = [f"--{name}={limit}:{limit}" for name, limit in most.items()]
    narrow = replace(sandboxes, enter=("prlimit", "--stack=8388608:16777216", *words, *sandboxes.enter))
    assert narrow.sh("ulimit -s; ulimit -Hs; ulimit -n; ulimit -t", limits=allowed).out.split()[:2] == ["16384"] * 2
    for name, limit in too_high.items():
        job = narrow.sh("echo not reached", limits=limit)
        assert (job.out, job.fields) == ("", {"here": f"limit-{name}"}), name


def test_what_is_usual_is_lowered_to_what_is_allowed_here(sandboxes: Sandboxes) -> None:
    """No limit is usual, and so are a million open files in a container."""
    narrow = replace(sandboxes, enter=("prlimit", "--nofile=600:600", "--fsize=5120:5120", *sandboxes.enter))
    assert narrow.sh("ulimit -n; ulimit -Hn; ulimit -f", limits="7:1048576:1048576,1:-:-").out == "600\n600\n10\n"
    assert narrow.sh("ulimit -n", limits="7:-:-").out == "600\n"
    assert narrow.sh("ulimit -n; ulimit -Hn").out == "600\n600\n", "nothing was told of the submitter"
    assert narrow.sh("ulimit -n; ulimit -Hn", limits="7:200:-").out == "200\n300\n", "half of it, as ever"


def test_the_limits_of_a_worker_are_never_raised(sandboxes: Sandboxes) -> None:
    job = sandboxes.sh("ulimit -d; ulimit -u", limits="2:-:-", memory=str(2**30), nproc="500")
    assert job.out.split()[0] == str(2**20)


def test_it_is_as_nice_as_its_submitter(sandboxes: Sandboxes) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert sandboxes.sh("cut -d' ' -f19 /proc/self/stat", nice="7").out == f"{max(before, 7)}\n"


@pytest.mark.parametrize("ignored", ["0", str(1 << 12 | 1 << 9 | 1)])
def test_it_ignores_the_signals_that_its_submitter_ignores(sandboxes: Sandboxes, ignored: str) -> None:
    job = sandboxes.sh("grep SigIgn /proc/self/status", ignored=ignored)
    assert int(job.out.split()[1], 16) & 0x7FFFFFFF == int(ignored)


@pytest.mark.parametrize("limits", ["7", "7:1", "7:1:2,", "7:1:2,,7:1:2", "99:1:2", "7:-1:2", "7:x:2", ":::"])
def test_a_list_of_limits_that_is_none_is_refused(sandboxes: Sandboxes, limits: str) -> None:
    assert "limits" in sandboxes.sh("echo not reached", limits=limits).fields["error"]


@pytest.mark.attack
@pytest.mark.parametrize("pattern", ["|/usr/lib/handler %p", "@/run/handler", "core.%p"])
def test_no_program_of_the_machine_gets_its_core(tmp_path: Path, pattern: str) -> None:
    """Test for a limit of 1. With 0, the kernel would start a program of core_pattern (core(5))."""
    show = 'while read -r line; do case "$line" in *core*) echo $line;; esac; done </proc/self/limits'
    limits = ["1", "1"] if pattern[0] in "|@" else ["0", "unlimited"]
    with tempfile.NamedTemporaryFile("w") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(pattern)
        file.flush()
        program = tmp_path / "termite-sandbox"
        defined = ["-D_GNU_SOURCE", '-DTERMITE_VERSION="x"', f'-DCORE_PATTERN="{file.name}"']
        sources = (NATIVE / "sandbox").rglob("*.c")
        subprocess.run(["cc", "-std=gnu11", "-O1", "-static", *defined, *sources, "-o", program], check=True)
        with small_base(program) as base:
            job = sandboxes_of(base, USERS[0]).sh(show, limits="4:0:-")
    assert job.out.split() == ["Max", "core", "file", "size", *limits, "bytes"]


# -- what it sees -----------------------------------------------------------------------------------------------------


def test_it_sees_the_lower_layers_and_writes_to_its_own(sandboxes: Sandboxes, base: Path) -> None:
    job = sandboxes.sh("ls /; echo new >made; mkdir /etc/d; echo x >/etc/d/f")
    assert job.out.split() == ["bin", "dev", "etc", "home", "lib", "lib64", "proc", "sys", "tmp", "usr"]
    files = {name: content for name, content in job.upper.items() if content != "directory"}
    assert files == {"home/me/made": "new\n", "etc/d/f": "x\n"}
    assert list((base / "root/home/me").iterdir()) == []


def test_upper_layers_hide_lower_ones(sandboxes: Sandboxes, base: Path) -> None:
    for number in range(3):
        (base / f"layer{number}/etc").mkdir(parents=True, exist_ok=True)
        (base / f"layer{number}/etc/which").write_text(str(number))
    assert sandboxes.sh("cat /etc/which", lower="layer2:layer1:layer0:root").out == "2"


@pytest.mark.parametrize("tmpfs", [True, False], ids=["tmpfs", "disk"])
def test_the_scratch_directory_may_be_on_tmpfs_or_disk(sandboxes: Sandboxes, tmpfs: bool) -> None:
    assert sandboxes.run(["sh", "-c", "echo x >f; rm /etc/../bin/yes"], tmpfs=tmpfs).upper["home/me/f"] == "x\n"


def test_a_scratch_directory_may_have_any_name(sandboxes: Sandboxes) -> None:
    assert sandboxes.run(["sh", "-c", "echo x >f"], scratch="a,b:c\\d e").upper["home/me/f"] == "x\n"


@pytest.mark.attack
def test_it_sees_no_process_but_its_own(sandboxes: Sandboxes) -> None:
    job = sandboxes.sh("ls /proc | grep -c '^[0-9]'; echo $$")
    assert int(job.out.split()[0]) <= 4
    assert job.out.split()[1] == "2"


@pytest.mark.attack
def test_it_has_the_usual_devices_and_no_others(sandboxes: Sandboxes) -> None:
    job = sandboxes.sh("ls /dev /dev/shm; echo x >/dev/null; head -c3 /dev/zero | wc -c; head -c9 /dev/urandom | wc -c")
    assert job.err == ""
    expected = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert job.out.split() == ["/dev:", *expected.split(), "/dev/shm:", "3", "9"]
    job = sandboxes.sh(
        "echo one >/dev/stdout; echo two >/dev/fd/2; touch /dev/shm/s && exec 3<>/dev/ptmx && ls /dev/pts"
    )
    assert (job.out, job.err) == ("one\n0\nptmx\n", "two\n")
    assert "home" not in job.upper  # all this makes no result
    assert not [name for name in job.upper if name.startswith(("dev/", "proc/"))]


@pytest.mark.attack
def test_the_workers_terminal_is_not_the_jobs(sandboxes: Sandboxes) -> None:
    assert sandboxes.sh(": </dev/tty").status != 0


@pytest.mark.attack
def test_it_has_a_loopback_interface_and_no_network(sandboxes: Sandboxes) -> None:
    job = sandboxes.sh(
        "tail -n +3 /proc/net/dev | tr -d ' ' | sort; grep -c 127.0.0.1 /proc/net/fib_trie; readlink /proc/self/ns/net"
    )
    lines = job.out.split()
    assert lines[0].startswith("lo:")
    assert int(lines[1]) > 0
    assert lines[2] != job.network


def test_a_rule_may_give_it_the_network(sandboxes: Sandboxes) -> None:
    job = sandboxes.run(["readlink", "/proc/self/ns/net"], network=True)
    assert job.out.strip() == job.network


# -- what it can do ---------------------------------------------------------------------------------------------------

ALL_CAPABILITIES = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]


@pytest.mark.attack
@pytest.mark.parametrize("uid", ["1000", "0"])
def test_it_has_no_capabilities(sandboxes: Sandboxes, uid: str) -> None:
    job = sandboxes.run(["grep", "-E", "^(Cap|NoNew)", "/proc/self/status"], {"uid": uid})
    fields = dict(line.split(":\t") for line in job.out.splitlines())
    assert [int(fields[name], 16) for name in ALL_CAPABILITIES] == [0] * 5
    assert fields["NoNewPrivs"] == "1"


READ_ONLY = "echo a >f; chmod 444 f; echo b >f; cat f; mkdir -m 555 d; touch d/x && ls d"


def test_a_submitter_that_is_root_writes_its_own_read_only_files(sandboxes: Sandboxes) -> None:
    assert sandboxes.sh(READ_ONLY, uid="0", gid="0", root="1").out == "b\nx\n"
    assert sandboxes.sh(READ_ONLY, uid="1000").out == "a\n"
    job = sandboxes.run(["grep", "-E", "^Cap(Prm|Eff|Bnd)", "/proc/self/status"], {"uid": "0", "gid": "0", "root": "1"})
    assert {int(line.split()[1], 16) for line in job.out.splitlines()} == {1 << 1 | 1 << 3 | 1 << 31}


@pytest.mark.attack
def test_it_cannot_reach_out_of_its_root(sandboxes: Sandboxes) -> None:
    for path in ("/proc/1/root/", "/proc/1/cwd/", "/../../var", "/var/tmp"):
        assert sandboxes.run(["ls", path], {"root": "1", "uid": "0", "gid": "0"}).out == ""
    for path in ("/proc/1/environ", "/proc/1/mem"):
        job = sandboxes.run(["cat", path], {"root": "1", "uid": "0", "gid": "0"})
        assert job.err == f"cat: {path}: Permission denied\n"
    script = "for i in 3 4 5 6 7 8 9 10 11 12; do cat /proc/1/fd/$i; done"  # what it has open is known to itself
    job = sandboxes.run(["sh", "-c", script], {"root": "1", "uid": "0", "gid": "0"})
    assert (job.out, "Permission denied" in job.err) == ("", True)


@pytest.mark.attack
def test_it_cannot_kill_its_keeper(sandboxes: Sandboxes) -> None:
    assert sandboxes.sh("kill -9 1; kill -9 -1; echo alive").out == "alive\n"
    assert sandboxes.sh("trap '' TERM; kill -TERM 1; kill -TERM 0; (sleep 0.1); echo alive").out == "alive\n"


def test_a_file_may_grow_to_its_limit_only(sandboxes: Sandboxes) -> None:
    assert sandboxes.sh("exec head -c 100000 /dev/zero >f", fsize="50000").status == -signal.SIGXFSZ
    assert sandboxes.sh("exec head -c 50000 /dev/zero >f", fsize="50000").status == 0


def test_a_job_may_have_so_many_processes_only(sandboxes: Sandboxes) -> None:
    job = sandboxes.sh("for i in 1 2 3 4 5 6; do sleep 100 & done; echo all", nproc="4")
    assert (job.out, job.status) == ("", 2)
    assert "fork" in job.err
    assert sandboxes.sh("sleep 100 & sleep 100 & echo all", nproc="4").out == "all\n"


SLEEPERS = "i=0; while [ $i -lt {} ]; do sleep 60 & i=$((i+1)); done"


@pytest.mark.parametrize("code", [0, 3])
def test_a_job_at_its_limit_of_processes_is_reported_whatever_its_exit_code(sandboxes: Sandboxes, code: int) -> None:
    job = sandboxes.sh(f"({SLEEPERS.format(150)}); sleep 0.01; exit {code}", nproc="100")
    assert (job.status, job.fields.get("full")) == (code, "1"), job
    assert int(job.fields["made"]) >= 100


def test_a_job_that_once_made_many_processes_is_not_at_its_limit(sandboxes: Sandboxes) -> None:
    job = sandboxes.sh("i=0; while [ $i -lt 150 ]; do /bin/true; i=$((i+1)); done; exit 3", nproc="100")
    assert (job.status, job.fields.get("full")) == (3, None)
    assert int(job.fields["made"]) >= 150


def test_a_job_with_few_processes_reports_none(sandboxes: Sandboxes) -> None:
    job = sandboxes.sh("sleep 0.02; exit 3", nproc="100")
    assert (job.fields.get("made"), job.fields.get("full")) == (None, None)


def test_a_process_may_have_so_much_memory_only(sandboxes: Sandboxes) -> None:
    limit = str(100 << 20)
    job = sandboxes.sh("dd if=/dev/zero of=/dev/null bs=200M count=1", memory=limit)
    assert job.status == 1
    assert "memory" in job.err
    assert sandboxes.sh("dd if=/dev/zero of=/dev/null bs=50M count=1", memory=limit).status == 0


# -- where it cannot be made ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"cwd": "/nowhere"}, "cannot enter /nowhere: No such file"),
        ({"mount": "/nowhere"}, "cannot enter /nowhere: No such file"),
        ({"lower": "nowhere"}, "cannot mount overlay: No such file"),
        ({"lower": ":".join(["root"] * 1000)}, "too many layers"),
        ({"stdin": "nowhere"}, "cannot open stdin nowhere: No such file"),
        ({"uid": "x"}, "bad number"),
        ({"uid": "-1"}, "bad number"),
    ],
)
def test_a_sandbox_that_cannot_be_made_says_why(sandboxes: Sandboxes, config: dict[str, str], words: str) -> None:
    job = sandboxes.run(["true"], config)
    assert list(job.fields) == ["error"]
    assert words in job.fields["error"]


def test_no_mount_of_a_job_is_seen_outside(sandboxes: Sandboxes) -> None:
    sandboxes.sh("true")
    assert str(sandboxes.base) not in Path("/proc/self/mounts").read_text()


FORK_TOO_OFTEN = "i=0; while [ $i -lt 200 ]; do sleep 60 & i=$((i+1)); done; exit 0"
HEADROOM = 40  # processes that the job may have


def test_a_command_that_could_not_fork_is_told_apart_from_one_that_failed(sandboxes: Sandboxes) -> None:
    limited = replace(sandboxes, enter=("prlimit", f"--nproc={HEADROOM + tasks_of(os.geteuid())}", *sandboxes.enter))
    job = limited.sh(FORK_TOO_OFTEN)
    assert (job.status, job.fields.get("full")) == (2, "1"), job
    job = limited.sh("exit 2")
    assert (job.status, job.fields.get("full")) == (2, None)
    job = sandboxes.sh(FORK_TOO_OFTEN)
    assert (job.status, job.fields.get("full")) == (0, None)


def test_a_job_that_met_the_users_limit_for_a_moment_and_ended_with_success_is_told(sandboxes: Sandboxes) -> None:
    limited = replace(sandboxes, enter=("prlimit", f"--nproc={HEADROOM + tasks_of(os.geteuid())}", *sandboxes.enter))
    job = limited.sh(f"({FORK_TOO_OFTEN}) || {{ kill -9 -1; echo did something else; }}; exit 0")
    assert (job.status, job.fields.get("full")) == (0, "1"), job
    job = limited.sh("true; /bin/true; exit 0")
    assert (job.status, job.fields.get("full")) == (0, None), "it has made too few"
    lots = replace(sandboxes, enter=("prlimit", "--nproc=8000", *sandboxes.enter))
    job = lots.sh("i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i+1)); done; exit 0")
    assert (job.status, job.fields.get("full")) == (0, None), "the machine has fewer tasks"


def tasks_of(uid: int) -> int:
    """Return the number of threads of a user. Jobs in tests of root have a user without threads."""
    if uid == 0:
        return 0
    return sum(1 for process in Path("/proc").glob("[0-9]*") if _uid(process) == uid for _ in _threads(process))


def _uid(process: Path) -> int:
    with suppress(OSError):
        return process.stat().st_uid
    return -1


def _threads(process: Path) -> list[str]:
    with suppress(OSError):
        return os.listdir(process / "task")
    return []
