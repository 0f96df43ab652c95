"""The launcher runs a command itself after a remote run of it has shown output."""

import contextlib
import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.fake_master import Conversation, FakeMaster, fields, finish, frame, started

HERE = frame("X", fields(("recurse", "0")))


def ends(talk: Conversation, how: str) -> None:
    """Let the remote run be lost with its worker, or with its master."""
    if how == "worker":
        talk.say(HERE)
    talk.vanish()


LOST = pytest.mark.parametrize("lost", ["worker", "master"])


@LOST
def test_output_that_is_repeated_is_shown_once(launcher: Path, tree: Path, master: FakeMaster, lost: str) -> None:
    with started([launcher, "sh", "-c", "echo v1; echo warning >&2; echo v2; exit 3"], tree) as process:
        talk = master.accept()
        talk.say(frame("1", b"v"), frame("2", b"warn"), frame("1", b"1\n"))
        ends(talk, lost)
        status, out, err = finish(process)
    assert (status, out) == (3, b"v1\nv2\n")
    assert err.startswith(b"warn") and err.endswith(b"ing\n") and err.count(b"warn") == 1


@LOST
@pytest.mark.parametrize("script", ["echo v2", "printf v", ":", "echo more >&2; echo other; echo more >&2"])
def test_other_output_ends_in_101_before_its_first_byte(
    launcher: Path, tree: Path, master: FakeMaster, script: str, lost: str
) -> None:
    with started([launcher, "sh", "-c", script], tree) as process:
        talk = master.accept()
        talk.say(frame("1", b"v1\n"))
        ends(talk, lost)
        status, out, err = finish(process)
    assert (status, out) == (101, b"v1\n")
    assert b"the command ran again and printed something else" in err


@pytest.mark.parametrize("changed", [None, 0, 1_500_000, 2_999_999])
def test_megabytes_are_compared_to_their_last_byte(
    launcher: Path, tree: Path, master: FakeMaster, changed: int | None
) -> None:
    text = bytearray(b"0123456789" * 300_000)
    (tree / "text").write_bytes(text + b"end")
    if changed is not None:
        text[changed] ^= 1
    with open(tree / "out", "wb") as out, started([launcher, "cat", "text"], tree, stdout=out.fileno()) as process:
        master.accept().say(frame("1", bytes(text)), HERE)
        status = finish(process)[0]
    assert status == (0 if changed is None else 101)
    assert (tree / "out").read_bytes() == text + (b"end" if changed is None else b"")


def test_stderr_is_compared_as_well_and_stdout_stays_the_commands_own(
    launcher: Path, tree: Path, master: FakeMaster
) -> None:
    show = 'test -f /dev/stdout && echo "a file"; echo note >&2'
    with open(tree / "out", "wb") as out, started([launcher, "sh", "-c", show], tree, stdout=out.fileno()) as process:
        master.accept().say(frame("2", b"note\n"), HERE)
        status, _, err = finish(process)
    assert (status, err) == (0, b"note\n")
    assert (tree / "out").read_bytes() == b"a file\n"


def test_one_file_for_both_streams_keeps_their_order(launcher: Path, tree: Path, master: FakeMaster) -> None:
    script = "echo 1; echo 2 >&2; echo 3; echo 4 >&2"
    with started([launcher, "sh", "-c", script], tree, stderr=subprocess.STDOUT) as process:
        master.accept().say(frame("1", b"1\n2\n3"), HERE)
        assert finish(process)[:2] == (0, b"1\n2\n3\n4\n")


def test_stdin_that_was_not_read_goes_to_the_command(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, "sh", "-c", "echo begun; cat"], tree, stdin=subprocess.PIPE) as process:
        master.accept().say(frame("1", b"begun\n"), HERE)
        out, _ = process.communicate(b"text", timeout=20)
    assert (process.returncode, out) == (0, b"begun\ntext")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_it_ends_by_the_commands_signal(launcher: Path, tree: Path, master: FakeMaster, number: signal.Signals) -> None:
    with started([launcher, "sh", "-c", f"echo v1; kill -{number.value} $$"], tree) as process:
        master.accept().say(frame("1", b"v1\n"), HERE)
        assert finish(process)[:2] == (-number, b"v1\n")


def pid_of_the_command(process: "subprocess.Popen[bytes]") -> int:
    assert process.stdout
    line = process.stdout.readline()
    return int(line)


def is_gone(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return b"State:\tZ" in Path(f"/proc/{pid}/status").read_bytes()
    return True


WAITS = ["sh", "-c", "trap 'echo stopped; exit 7' TERM; printf v1; echo $$; while :; do sleep 0.01; done"]


def test_a_signal_for_it_reaches_the_command_once(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, *WAITS], tree) as process:
        master.accept().say(frame("1", b"v1"), HERE)
        assert process.stdout and process.stdout.read(2) == b"v1"
        pid_of_the_command(process)
        process.terminate()
        assert finish(process)[:2] == (7, b"stopped\n")


def test_who_kills_it_kills_the_command(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, *WAITS], tree) as process:
        master.accept().say(frame("1", b"v1"), HERE)
        assert process.stdout and process.stdout.read(2) == b"v1"
        pid = pid_of_the_command(process)
        process.kill()
        process.wait(20)
        limit_s = time.monotonic() + 20
        while not is_gone(pid):
            assert time.monotonic() < limit_s
            time.sleep(0.01)


def test_the_command_has_the_signals_and_descriptors_it_would_have_had(
    launcher: Path, tree: Path, master: FakeMaster
) -> None:
    show = ["sh", "-c", "echo v1; ls /proc/self/fd; exec grep -E '^Sig(Blk|Ign)' /proc/self/status"]
    plain = subprocess.run(show, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout
    with started([launcher, *show], tree) as process:
        master.accept().say(frame("1", b"v1\n"), HERE)
        assert finish(process)[1] == plain


@pytest.mark.parametrize("script", ["exec yes", "echo y; echo more; exit 0"])
def test_output_that_nobody_reads_kills_as_it_does_without_termite(
    launcher: Path, tree: Path, master: FakeMaster, script: str
) -> None:
    reader, writer = os.pipe()
    with started([launcher, "sh", "-c", script], tree, stdout=writer) as process:
        os.close(writer)
        talk = master.accept()
        talk.say(frame("1", b"y\n"))
        assert os.read(reader, 2) == b"y\n"
        os.close(reader)
        talk.say(HERE)
        assert process.wait(20) == -signal.SIGPIPE


def test_output_that_cannot_be_written_is_a_write_error(launcher: Path, tree: Path, master: FakeMaster) -> None:
    limited = ["sh", "-c", 'trap "" XFSZ; ulimit -f 1; exec "$@"', "sh", str(launcher)]
    script = "echo v1; head -c 100000 /dev/zero; exit 0"
    with open(tree / "out", "wb") as out, started([*limited, "sh", "-c", script], tree, stdout=out.fileno()) as process:
        master.accept().say(frame("1", b"v1\n"), HERE)
        status, _, err = finish(process)
    assert status == 1 and b"termite: cannot write the output of sh: File too large\n" in err


def test_a_process_that_stays_behind_neither_keeps_it_nor_loses_its_reader(
    launcher: Path, tree: Path, master: FakeMaster
) -> None:
    script = "echo v1; (while test ! -e go; do sleep 0.01; done; echo late; echo later) & exit 5"
    with started([launcher, "sh", "-c", script], tree) as process:
        master.accept().say(frame("1", b"v1\n"), HERE)
        assert process.wait(20) == 5
        (tree / "go").touch()
        out, _ = process.communicate(timeout=20)  # the end of file comes with the end of that process
    assert out == b"v1\nlate\nlater\n"


def test_a_process_that_stays_behind_and_writes_without_end_does_not_keep_it(
    launcher: Path, tree: Path, master: FakeMaster
) -> None:
    with started([launcher, "sh", "-c", "echo y; yes & exit 5"], tree, stdout=subprocess.PIPE) as process:
        master.accept().say(frame("1", b"y\n"), HERE)
        assert process.stdout
        while process.poll() is None:
            os.read(process.stdout.fileno(), 65536)
        assert process.returncode == 5


def test_a_command_that_cannot_be_found_is_said_as_ever(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, "no-such-command"], tree) as process:
        master.accept().say(frame("2", b"x"), HERE)
        status, _, err = finish(process)
    assert status == 101 and b"printed something else" in err


# -- terminals --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def on_a_terminal(launcher: Path, tree: Path, *argv: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    leader, follower = pty.openpty()
    try:
        with started([launcher, *argv], tree, stdin=follower, stdout=follower, stderr=follower) as process:
            os.close(follower)
            yield process, leader
    finally:
        os.close(leader)


def everything(leader: int) -> bytes:
    text = b""
    with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
        while piece := os.read(leader, 65536):
            text += piece
    return text.replace(b"\r\n", b"\n")


@LOST
@pytest.mark.parametrize("shown", [b"v1\n", b""])
def test_on_a_terminal_a_second_run_follows_after_a_line_and_writes_to_it(
    launcher: Path, tree: Path, master: FakeMaster, lost: str, shown: bytes
) -> None:
    script = "test -t 1 && test -t 2 && echo v1; echo v2 >&2; exit 3"
    with on_a_terminal(launcher, tree, "sh", "-c", script) as (process, leader):
        talk = master.accept()
        talk.say(frame("1", shown))
        ends(talk, lost)
        text = everything(leader)
        assert process.wait(20) == 3
    assert text.startswith(shown) and text.endswith(b"v1\nv2\n")
    assert text.count(b"v1\n") == (2 if shown else 1)
    assert (b"the output above is of its first run\n" in text) == bool(shown)


def test_a_pipe_beside_a_terminal_is_compared(launcher: Path, tree: Path, master: FakeMaster) -> None:
    leader, follower = pty.openpty()
    with started([launcher, "sh", "-c", "echo v1; test -t 1 && echo e2 >&2"], tree, stdout=follower) as process:
        os.close(follower)
        master.accept().say(frame("1", b"v1\n"), frame("2", b"e"), HERE)
        text = everything(leader)
        _, _, err = finish(process)
    os.close(leader)
    assert (text, process.returncode) == (b"v1\nv1\n", 0)
    assert err.replace(b"termite: 1 command runs again; the output above is of its first run\n", b"") == b"e2\n"


# -- the kinds of stdin, stdout and stderr ----------------------------------------------------------------------------


def kinds(talk: Conversation) -> tuple[bytes, ...]:
    return tuple(talk.invocation[name] for name in ("in", "out", "err"))


def test_the_kinds_of_its_streams_are_told(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with open(tree / "log", "wb") as log, open("/dev/null", "wb") as null:
        with started([launcher, "true"], tree, stdout=log.fileno(), stderr=null.fileno()):
            assert kinds(master.accept()) == (b"other", b"file", b"null")
        os.unlink(tree / "log")
        with started([launcher, "true"], tree, stdout=log.fileno()):
            assert kinds(master.accept()) == (b"other", b"file", b"other")
    with on_a_terminal(launcher, tree, "true"):
        assert kinds(master.accept()) == (b"tty", b"tty", b"tty")


def test_a_pipe_is_collected_if_the_build_tool_has_made_it_for_the_command(
    launcher: Path, tree: Path, master: FakeMaster
) -> None:
    for tool, piped, own in (("ninja", b"collected", b"other"), ("make", b"other", b"other")):
        command = f"{launcher} --preload={tool} --exe=/bin/true -- true"
        with started(["sh", "-c", f"{command} 2>&1 | cat; :"], tree):
            # The subshell of the pipeline executes the launcher, and its parent has another stdout.
            assert kinds(master.accept())[1:] == (piped, piped)
        with started(["sh", "-c", f"{command}; :"], tree):
            assert kinds(master.accept())[1:] == (own, own)
