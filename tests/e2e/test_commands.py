"""A command behaves remotely as it does at home: what it prints, how it ends, what it is given."""

import os
import signal
from pathlib import Path

import pytest

from termite.engine.errors import Reason
from tests.e2e.cluster import Tree
from tests.e2e.waiting import wait_until

# What a user can see of each of these must not depend on where it ran.
SCRIPTS = {
    "prints to stdout": "echo out",
    "prints to stderr": "echo err >&2",
    "prints nothing and no newline": "printf 'no newline'",
    "prints binary": r"printf '\000\001\377\r\n'",
    "prints megabytes": "seq 1 400000",
    "succeeds": "exit 0",
    "fails with 1": "exit 1",
    "fails with 77": "exit 77",
    "fails with 255": "exit 255",
    "is not found": "nosuchcommand",
    "is not executable": "./plain.txt",
    "is a missing file": "./missing",
    "reads a missing file": "cat missing",
    "dies by SIGKILL": "kill -KILL $$",
    "dies by SIGTERM": "kill -TERM $$",
    "dies by SIGSEGV": "kill -SEGV $$",
    "dies by SIGINT": "kill -INT $$",
    "dies by SIGPIPE": "kill -PIPE $$",
    # Without the C library's own two, which posix_spawn leaves ignored.
    "ignores no signal": "sed -nE 's/^(Sig(Ign|Blk)).*(.{7})$/\\1 \\3/p' /proc/self/status",
    "prints before it dies": "echo out; echo err >&2; kill -ABRT $$",
    "asks where it is": "pwd; /bin/pwd",
    "asks who it is": "id -u; id -g; whoami; hostname",
    "asks for its umask": "umask",
    "asks for its home": 'echo "$HOME"; cd && pwd',
    "sorts its environment": "env | sort",
    "has its own pid": "test $$ -gt 1 && echo yes",
    "makes a temporary file": 'f=$(mktemp) && echo x >"$f" && cat "$f" && rm "$f"',
    "runs a program from /tmp": 'd=$(mktemp -d) && cp /bin/echo "$d/e" && "$d/e" ran; rm -r "$d"',
    "uses the devices": "head -c 4 /dev/zero | od -c; echo gone >/dev/null; test -c /dev/urandom && echo there",
    "passes a pipe": "seq 1 1000 | sort -rn | head -n 3",
    "redirects fd 3": "exec 3>&1; echo three >&3",
    "reads empty stdin": "cat; echo end",
    "finds a directory by its number": "mkdir -p d f; n=$(stat -c %i d); find . -inum $n; ls -id d | grep -c $n",
    "counts the blocks of a file": "ls -s plain.txt; du -k plain.txt",
    "asks for its limits": "ulimit -Sn; ulimit -Ss; ulimit -Hs; ulimit -Sc; ulimit -Hc; ulimit -t; ulimit -v; nice",
    "meets a limit": "(ulimit -f 8; head -c 100000 /dev/zero >big; echo $?; stat -c %s big); rm big",
    "compiles": "printf 'int main(void){return 42;}' | gcc -x c - -o prog && ./prog; echo $?; rm prog",
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_a_command_looks_the_same_at_home_and_far_away(tree: Tree, script: str) -> None:
    tree.write("plain.txt", "text\n")
    before = tree.jobs()
    assert tree.termite("sh", "-c", script) == tree.plain("sh", "-c", script)
    assert tree.jobs() == before + 1, "it ran here"


def test_a_core_file_comes_home(tree: Tree) -> None:
    if Path("/proc/sys/kernel/core_pattern").read_text().startswith(("|", "/")):
        pytest.skip("this machine keeps core files elsewhere (kernel.core_pattern)")
    script = "ulimit -c unlimited; sh -c 'kill -SEGV $$'; echo $?; ulimit -c"
    jobs = tree.jobs()
    for run in (tree.plain, tree.termite):
        assert run("sh", "-c", script).stdout == b"139\nunlimited\n"
        (core,) = tree.path.glob("core*")
        assert core.read_bytes().startswith(b"\x7fELF")
        assert core.stat().st_mode & 0o777 == 0o600
        core.unlink()
    assert tree.jobs() == jobs + 1


def test_stdout_and_stderr_stay_in_order_where_they_are_one_file(tree: Tree) -> None:
    script = "for i in $(seq 1 200); do echo out $i; echo err $i >&2; done"
    far = tree.termite("sh", "-c", script, merge=True)
    assert far == tree.plain("sh", "-c", script, merge=True)


def test_output_arrives_while_the_command_runs(tree: Tree) -> None:
    process = tree.where.start(
        [tree.where.termite("termite"), "sh", "-c", "echo first; read answer"], tree.path, stdin=-1
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"first\n"
    process.communicate(b"go\n", timeout=30)
    assert process.returncode == 0


ARGUMENTS: dict[str, list[str | bytes]] = {
    "empty": ["", "", "a", ""],
    "spaces": [" a  b ", "\t"],
    "a newline": ["one\ntwo\n"],
    "UTF-8": ["Grüße, 世界 🐜"],
    "bytes that are no text": [b"\xff\xfe/\x80"],
    "quotes and wildcards": ["'", '"', "$HOME `id` * ? [a] {b,c} \\ ;|&<>"],
    "100 KiB": ["x" * 100 * 1024],
    "1 MiB in many": ["y" * 1000] * 1000,
}


@pytest.mark.parametrize("words", ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_arguments_arrive_unchanged(tree: Tree, words: list[str | bytes]) -> None:
    far = tree.termite("printf", "<%s>\n", *words)
    assert far == tree.plain("printf", "<%s>\n", *words)
    assert far.code == 0


def test_a_multi_line_script_with_utf_8_arrives_unchanged(tree: Tree) -> None:
    script = "set -e\nname='Käse 世'\nif true; then\n  echo \"$name\"\nfi\n# ende"
    assert tree.termite("sh", "-c", script) == tree.plain("sh", "-c", script)


def test_the_environment_arrives_with_newlines_and_without_termite(tree: Tree) -> None:
    env = {"E2E_LINES": "one\ntwo", "E2E_EMPTY": "", "E2E_UTF": "ü", "TERMITE_VERBOSE": "1"}
    printed = tree.termite("env", "-0", env=env).stdout.split(b"\0")
    assert b"E2E_LINES=one\ntwo" in printed
    assert b"E2E_EMPTY=" in printed
    assert not [line for line in printed if line.startswith((b"TERMITE_", b"LD_PRELOAD"))]


def test_the_working_directory_is_the_callers(tree: Tree) -> None:
    tree.mkdir("a b/ü")
    assert tree.termite("pwd", within="a b/ü") == tree.plain("pwd", within="a b/ü")


def test_the_umask_is_the_callers(tree: Tree) -> None:
    tree.termite("touch", "made", umask=0o027)
    assert (tree.path / "made").stat().st_mode & 0o777 == 0o640


def test_stdin_from_a_pipe_is_read_to_its_end(tree: Tree) -> None:
    content = os.urandom(300_000)
    assert tree.termite("cat", stdin=content).stdout == content


def test_stdin_from_a_file_is_read_to_its_end(tree: Tree) -> None:
    tree.write("input", "a line\n" * 1000)
    assert tree.plain("sh", "-c", f"{tree.where.word('termite')} wc -l <input").stdout == b"1000\n"


def test_a_command_takes_from_stdin_only_what_it_reads(tree: Tree) -> None:
    script = f"{tree.where.word('termite')} dd bs=1 count=5 status=none; echo; cat"
    assert tree.plain("sh", "-c", script, stdin=b"firstrest").stdout == b"first\nrest"
    tree.write("input", "firstrest")
    assert tree.plain("sh", "-c", f"({script}) <input").stdout == b"first\nrest"


def test_a_command_that_does_not_read_leaves_stdin_alone(tree: Tree) -> None:
    tree.write("list", "a\nb\nc\n")
    script = f"while read name; do {tree.where.word('termite')} echo got $name; done <list"
    assert tree.plain("sh", "-c", script).stdout == b"got a\ngot b\ngot c\n"


def test_what_a_command_leaves_running_goes_on_here(tree: Tree) -> None:
    """The process writes only after a signal, which reaches it on this machine alone."""
    silent = "</dev/null >/dev/null 2>&1"
    script = f"sh -c 'trap \"echo late >late; exit\" USR1; while :; do sleep 0.1; done' {silent} & echo $!"
    before, jobs = tree.status()["fallbacks"].get(Reason.PROCESS_LEFT, 0), tree.jobs()
    far = tree.termite("sh", "-c", script, timeout_s=20)
    assert far.code == 0, far
    pid = int(far.stdout)
    try:
        assert tree.status()["fallbacks"][Reason.PROCESS_LEFT] == before + 1
    finally:
        tree.where.run(["kill", "-USR1", str(pid)], tree.path)
    wait_until((tree.path / "late").exists, "the process writes")
    assert tree.jobs() == jobs


def test_what_ends_soon_after_a_command_has_time_for_that(tree: Tree) -> None:
    jobs = tree.jobs()
    script = "(sleep 0.1; echo soon >soon) >/dev/null 2>&1 & echo started"
    assert tree.termite("sh", "-c", script).stdout == b"started\n"
    assert (tree.path / "soon").read_text() == "soon\n"
    assert tree.jobs() == jobs + 1


def test_loopback_is_up_and_the_outside_is_not_there(tree: Tree) -> None:
    script = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname()); print(1)"
    )
    assert tree.termite("/usr/bin/python3", "-c", script).stdout == b"1\n"
    assert b"eth" not in tree.termite("cat", "/proc/net/dev").stdout


def test_a_command_sees_no_other_process_of_the_worker(tree: Tree) -> None:
    far = tree.termite("sh", "-c", "cat /proc/[0-9]*/comm")
    assert len(far.stdout.splitlines()) <= 4, far


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_remote_command_and_leaves_no_partial_file(tree: Tree, number: signal.Signals) -> None:
    script = "echo half >partial; echo started; sleep 1000.25; echo whole >>partial"
    process = tree.where.start([tree.where.termite("termite"), "sh", "-c", script], tree.path)
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    os.killpg(process.pid, number)
    assert process.wait(20) == -number
    process.communicate()
    assert not (tree.path / "partial").exists()
    wait_until(lambda: tree.jobs("running") == 0, "the job has ended")


def test_a_launcher_that_vanishes_cancels_its_job(tree: Tree) -> None:
    process = tree.where.start(
        [tree.where.termite("termite"), "sh", "-c", "echo x >made; echo on; sleep 1000"], tree.path
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"on\n"
    process.kill()
    process.communicate()
    wait_until(lambda: tree.jobs("running") == 0, "the job has ended")
    assert not (tree.path / "made").exists()


def test_a_reader_that_stops_reading_ends_the_command_as_at_home(tree: Tree) -> None:
    script = "{} | head -n 1"
    far = tree.plain("bash", "-c", script.format(f"{tree.where.word('termite')} yes"), timeout_s=30)
    assert far.stdout == b"y\n"


def test_a_project_in_tmp_is_seen_and_no_private_file_beside_it(tree: Tree) -> None:
    termite, ctl = tree.where.word("termite"), tree.where.word("termite-ctl")
    script = f"""
        (umask 077; touch /tmp/secret-of-another); cd "$(mktemp -d)" && echo in >in && {ctl} start . >/dev/null 2>&1
        {termite} sh -c 'cat in; ls /tmp | grep -c secret; echo out >out' && cat out
        {ctl} shutdown >/dev/null; rm in out /tmp/secret-of-another && rmdir "$PWD" """
    assert tree.plain("sh", "-c", script).stdout == b"in\n0\nout\n"


def test_without_a_master_the_command_just_runs(tree: Tree) -> None:
    outside = tree.where.base / "home"
    done = tree.where.run([tree.where.termite("termite"), "sh", "-c", "echo here; exit 3"], outside)
    assert (done.code, done.stdout, done.stderr) == (3, b"here\n", b"")
