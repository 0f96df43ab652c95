"""A mirror process enters its own namespaces, or the user gets a reason why it cannot."""

import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.native.fake_master import LIMIT_S, finish, started

IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.needs_root("changes to another user")


def enter(sandbox_program: Path, *words: str, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sandbox_program, "enter", *words],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        umask=umask,
    )


def test_the_version_is_that_of_termite(sandbox_program: Path) -> None:
    run = subprocess.run([sandbox_program, "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("termite-sandbox 0.")


def test_the_program_is_root_and_pid_1_of_its_own_namespaces(sandbox_program: Path) -> None:
    show = (
        "id -u; echo $$; ls /proc | grep -c '^[0-9]'; readlink /proc/self/ns/user /proc/self/ns/mnt /proc/self/ns/pid"
    )
    run = enter(sandbox_program, "--", "sh", "-c", show)
    assert run.stderr == ""
    lines = run.stdout.split()
    assert lines[:2] == ["0", "1"]
    assert int(lines[2]) <= 4
    assert not set(lines[3:]) & {os.readlink(f"/proc/self/ns/{name}") for name in ("user", "mnt", "pid")}


def test_root_inside_is_the_caller_outside(sandbox_program: Path) -> None:
    run = enter(sandbox_program, "--", "cat", "/proc/self/uid_map", "/proc/self/gid_map")
    assert run.stdout.split() == ["0", str(os.geteuid()), "1", "0", str(os.getegid()), "1"]


@needs_root
def test_root_inside_may_be_another_user_outside_with_no_groups(sandbox_program: Path) -> None:
    show = "cat /proc/self/uid_map /proc/self/gid_map; id -G"
    run = enter(sandbox_program, "--uid=4321", "--gid=1234", "--", "sh", "-c", show)
    assert run.stdout.split() == ["0", "4321", "1", "0", "1234", "1", "0"]


@needs_root
@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="this kernel has no fuse")
def test_the_other_user_may_open_fuse_and_the_hosts_node_stays_as_it_is(sandbox_program: Path) -> None:
    before = os.stat("/dev/fuse")
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:
        marker = Path(file.name)
        show = f"exec 3<>/dev/fuse && echo opened; cd /tmp && ls {marker.name}"
        run = enter(sandbox_program, "--uid=4321", "--gid=4321", "--", "sh", "-c", show)
    assert run.stdout.split()[0] == "opened"
    assert run.stdout.split()[1] == marker.name
    after = os.stat("/dev/fuse")
    assert (before.st_mode, before.st_ino) == (after.st_mode, after.st_ino)


@needs_root
def test_what_must_be_reached_in_a_closed_directory_is_all_that_is_seen_of_it(
    sandbox_program: Path, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    for name in ("in/one", "in/two", "other"):
        (closed / name).mkdir(parents=True)
        (closed / name / "file").write_text(name)
    closed.chmod(0o700)
    show = f"find {closed} -type f | sort; cat {closed}/in/one/file"
    reached = [f"--reach={closed}/in/one", f"--reach={closed}/in/two"]
    run = enter(sandbox_program, "--uid=4321", "--gid=4321", *reached, "--", "sh", "-c", show, umask=0o077)
    assert run.stderr == ""
    assert run.stdout.split() == [f"{closed}/in/one/file", f"{closed}/in/two/file", "in/one"]
    assert (closed / "other/file").read_text() == "other"


def test_it_mounts_and_nobody_outside_sees_it(sandbox_program: Path, tmp_path: Path) -> None:
    run = enter(
        sandbox_program, "--", "sh", "-c", f"mount -t tmpfs mine {tmp_path} && touch {tmp_path}/f && ls {tmp_path}"
    )
    assert run.stdout == "f\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(tuple(map(int, os.uname().release.split(".")[:2])) < (5, 12), reason="needs mount_setattr")
@pytest.mark.parametrize("options", [(), pytest.param(("--uid=4321", "--gid=4321"), marks=needs_root)])
def test_no_file_gives_rights_to_whom_executes_it_there(sandbox_program: Path, options: tuple[str, ...]) -> None:
    run = enter(sandbox_program, *options, "--", "cat", "/proc/self/mountinfo")
    mounts = [line.split()[4:6] for line in run.stdout.splitlines()]
    assert len(mounts) > 1
    assert not [place for place, flags in mounts if "nosuid" not in flags.split(",")]


def test_it_ends_as_the_program_did(sandbox_program: Path) -> None:
    assert enter(sandbox_program, "--", "sh", "-c", "exit 7").returncode == 7
    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"  # pid 1 of a namespace cannot do this to itself
    assert enter(sandbox_program, "--", "python3", "-c", script).returncode == 0
    run = enter(sandbox_program, "--", "/nowhere/program")
    assert (run.returncode, run.stderr) == (127, "termite-sandbox: /nowhere/program: No such file or directory\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_to_the_program(sandbox_program: Path, tmp_path: Path, number: int) -> None:
    script = f"trap 'echo got; exit 5' {number}; echo ready; while :; do sleep 0.05; done"
    with started([sandbox_program, "enter", "--", "sh", "-c", script], tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert finish(process)[:2] == (5, b"got\n")


def test_the_program_dies_with_it(sandbox_program: Path, tmp_path: Path) -> None:
    with started([sandbox_program, "enter", "--", "sh", "-c", "echo ready; sleep 1000"], tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        assert process.stdout.read() == b""  # nobody holds the pipe any more


def test_what_the_program_closes_is_closed(sandbox_program: Path, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    script = f"exec {theirs.fileno()}>&-; echo closed; read line"
    argv = [str(sandbox_program), "enter", "--", "bash", "-c", script]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(theirs.fileno(),))
    with process, ours:
        theirs.close()
        ours.settimeout(LIMIT_S)
        assert ours.recv(1) == b""  # though the program still runs
        process.communicate(timeout=LIMIT_S)


def test_bad_arguments_are_one_line(sandbox_program: Path) -> None:
    for words in (
        ["--"],
        ["sh"],
        ["--uid=x", "--", "sh"],
        ["--uid=1", "--", "sh"],
        ["--uid=-1", "--gid=1", "--", "sh"],
    ):
        run = enter(sandbox_program, *words)
        assert run.returncode == 100
        assert run.stderr.count("\n") == 1


def test_where_user_namespaces_are_used_up_one_line_says_what_to_do(sandbox_program: Path) -> None:
    script = 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$0" enter -- true'
    run = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", script, sandbox_program], capture_output=True, text=True, timeout=LIMIT_S
    )
    assert run.returncode == 100
    assert run.stderr == (
        "termite-sandbox: cannot make a user namespace: No space left on device: "
        "run: sysctl -w user.max_user_namespaces=15000\n"
    )


@needs_root
def test_another_users_identity_is_for_root_only(sandbox_program: Path) -> None:
    argv = [
        "setpriv",
        "--reuid=1234",
        "--regid=1234",
        "--clear-groups",
        "/proc/self/fd/9",
        "enter",
        "--uid=1",
        "--gid=1",
    ]
    script = 'exec 9<"$0"; exec "$@"'
    run = subprocess.run(
        ["bash", "-c", script, sandbox_program, *argv, "--", "true"], capture_output=True, text=True, timeout=LIMIT_S
    )
    assert run.returncode == 100
    assert run.stderr == (
        "termite-sandbox: cannot make a mount namespace: Operation not permitted: --uid is for root\n"
    )


def test_it_joins_a_control_group_before_anything_else(sandbox_program: Path, tmp_path: Path) -> None:
    """A plain file stands for the group: 0 is the process that writes."""
    procs = tmp_path / "cgroup.procs"
    procs.touch()
    run = enter(sandbox_program, f"--group={procs}", "--", "echo", "runs")
    assert (run.stdout, run.returncode, procs.read_text()) == ("runs\n", 0, "0")
    run = enter(sandbox_program, f"--group={tmp_path}/none/cgroup.procs", "--", "echo", "runs")
    assert run.stdout == ""
    assert "cannot join the control group of" in run.stderr
    assert run.returncode != 0
