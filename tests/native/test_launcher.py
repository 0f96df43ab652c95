"""The launcher and its master: which fields it sends, what it passes on, and how it ends."""

import errno
import fcntl
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from termite.engine.launch.vantage import own_vantage
from tests.native.fake_master import (
    FakeMaster,
    exit_code,
    exit_signal,
    fields,
    finish,
    frame,
    started,
)

# -- its fields ----------------------------------------------------------------------------------------------------


def test_a_command_is_told_as_it_was_called(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, "gcc", "-c", "a b.c", ""], tree) as process:
        talk = master.accept()
        talk.say(exit_code(0))
        finish(process)
    said = talk.invocation
    assert said.all("arg") == [b"gcc", b"-c", b"a b.c", b""]
    assert (said["v"], said["how"], said["tool"]) == (b"6", b"direct", b"")
    assert (said["exe"], said["search"]) == (b"gcc", b"1")
    assert said["cwd"] == os.fsencode(tree)
    assert said["pid"] == str(process.pid).encode()


@pytest.mark.attack
@pytest.mark.needs_root("gives a socket to another user")
@pytest.mark.parametrize("is_named", [True, False], ids=["TERMITE_BUILD_SOCKET", "in the tree"])
def test_a_socket_of_another_user_is_not_used(
    launcher: Path, tree: Path, master: FakeMaster, tmp_path: Path, is_named: bool
) -> None:
    os.chown(master.path, 61000, 61000)
    env = {**os.environ, "TERMITE_BUILD_SOCKET": str(master.path)} if is_named else dict(os.environ)
    where = tmp_path if is_named else tree
    assert subprocess.run([launcher, "echo", "x"], cwd=where, env=env, capture_output=True, timeout=20).stdout == b"x\n"


def test_a_shell_call_is_told_with_the_shell_it_stands_for(launcher: Path, tree: Path, master: FakeMaster) -> None:
    (tree / "termite-shell").symlink_to(launcher)
    with started([tree / "termite-shell", "-ec", "echo x"], tree, env={"TERMITE_SHELL": "/bin/bash"}) as process:
        talk = master.accept()
        talk.say(exit_code(0))
        finish(process)
    said = talk.invocation
    assert (said["how"], said["exe"], said["search"]) == (b"shell", b"/bin/bash", b"0")
    assert said.all("arg") == [b"/bin/bash", b"-ec", b"echo x"]


def test_a_preload_call_is_told_with_the_tool_and_the_real_program(
    launcher: Path, tree: Path, master: FakeMaster
) -> None:
    options = ["--preload=make", "--exe=/bin/sh", "--search=0", "--"]
    with started([launcher, *options, "sh", "-c", "--exe=no"], tree) as process:
        talk = master.accept()
        talk.say(exit_code(0))
        finish(process)
    said = talk.invocation
    assert (said["how"], said["tool"], said["exe"], said["search"]) == (b"preload", b"make", b"/bin/sh", b"0")
    assert said.all("arg") == [b"sh", b"-c", b"--exe=no"]


def test_words_before_the_command_that_are_no_options_are_notes(launcher: Path, tree: Path, master: FakeMaster) -> None:
    options = ["--cmake=compile", "--exe=/bin/echo", "--object=a=b.o", "--empty=", "--"]
    with started([launcher, *options, "echo", "--this=stays"], tree) as process:
        talk = master.accept()
        talk.say(frame("X"))
        assert finish(process) == (0, b"--this=stays\n", b"")
    said = talk.invocation
    assert said.all("note") == [b"cmake=compile", b"object=a=b.o", b"empty="]
    assert (said["exe"], said.all("arg")) == (b"/bin/echo", [b"echo", b"--this=stays"])


@pytest.mark.parametrize(("recurse", "kept"), [("0", b""), ("1", b"MAKE_SHELL=x\n")])
def test_makes_below_a_local_command_are_wrapped_only_where_it_says_so(
    launcher: Path, tree: Path, master: FakeMaster, recurse: str, kept: bytes
) -> None:
    (tree / "termite-shell").symlink_to(launcher)
    env = {"TERMITE_SHELL": "/bin/sh", "MAKE_SHELL": "x"}
    with started([tree / "termite-shell", "-c", "env | grep SHELL=; :"], tree, env=env) as process:
        master.accept().say(frame("X", fields(("recurse", recurse))))
        assert finish(process) == (0, kept, b"")


def test_the_environment_is_told_without_our_preload_set_up(launcher: Path, tree: Path, master: FakeMaster) -> None:
    env = {
        "A": "1=2",
        "EMPTY": "",
        "LD_PRELOAD": "/lib/mine.so:/x/libtermite-exec.so /lib/other.so",
        "TERMITE_PRELOAD": "/x/libtermite-exec.so",
        "TERMITE_LAUNCHER": "/x/termite",
        "TERMITE_LOCAL": "never",
    }
    with started([launcher, "true"], tree, env=env) as process:
        talk = master.accept()
        talk.say(exit_code(0))
        finish(process)
    assert talk.invocation.env == {
        b"A": b"1=2",
        b"EMPTY": b"",
        b"LD_PRELOAD": b"/lib/mine.so:/lib/other.so",
        b"TERMITE_LOCAL": b"never",
    }


def test_an_ld_preload_with_only_our_library_is_not_told(launcher: Path, tree: Path, master: FakeMaster) -> None:
    env = {"LD_PRELOAD": ":/x/lib.so:", "TERMITE_PRELOAD": "/x/lib.so"}
    with started([launcher, "true"], tree, env=env) as process:
        talk = master.accept()
        talk.say(exit_code(0))
        finish(process)
    assert talk.invocation.env == {}


def test_large_arguments_and_environments_arrive_whole(launcher: Path, tree: Path, master: FakeMaster) -> None:
    words = [bytes([65 + i]) * 100_000 for i in range(8)]
    env = {f"V{i}": "v" * 100_000 for i in range(8)}
    with started([launcher, b"cat", *words], tree, env=env) as process:
        talk = master.accept()
        talk.say(exit_code(0))
        assert finish(process)[0] == 0
    assert talk.invocation.all("arg")[1:] == words
    assert talk.invocation.env == {os.fsencode(k): os.fsencode(v) for k, v in env.items()}


def test_bytes_that_are_not_text_arrive_unchanged(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, b"cat", b"\xff\xfe", b"line\nbreak", "ü".encode()], tree) as process:
        talk = master.accept()
        talk.say(exit_code(0))
        finish(process)
    assert talk.invocation.all("arg") == [b"cat", b"\xff\xfe", b"line\nbreak", "ü".encode()]


def test_it_tells_from_where_it_sees_files_users_and_the_machine(
    launcher: Path, tree: Path, master: FakeMaster
) -> None:
    (tree / "sub").mkdir()
    (tree / "link").symlink_to("sub")
    for directory in (tree, tree / "sub", tree / "link"):
        with started([launcher, "gcc"], directory) as process:
            talk = master.accept()
            talk.say(exit_code(0))
            finish(process)
        expected = own_vantage(str(directory))
        for name in ("root", "users", "here", "host"):
            assert talk.invocation[name].decode() == getattr(expected, name) != "", name


@pytest.mark.needs_root("makes mounts and namespaces")
@pytest.mark.parametrize(
    ("enter", "names"),
    [
        (["unshare", "--mount"], {"root"}),
        (["unshare", "--user"], {"users"}),
        (["unshare", "--user", "--map-root-user", "--mount"], {"root", "users"}),
        (["unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh"], {"host"}),
        (["setarch", "linux32"], {"host"}),
        (["setpriv", "--regid=61003", "--clear-groups"], {"users"}),
        (["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /proc && exec "$@"', "sh"], {"root", "users"}),
        (["unshare", "--net", "--ipc"], set()),
    ],
)
def test_it_tells_what_is_different_there(
    launcher: Path, tree: Path, master: FakeMaster, enter: list[str], names: set[str]
) -> None:
    with started([*enter, launcher, "gcc"], tree) as process:
        talk = master.accept()
        talk.say(exit_code(0))
        finish(process)
    expected = own_vantage(str(tree))
    different = {n for n in ("root", "users", "here", "host") if talk.invocation[n].decode() != getattr(expected, n)}
    assert different == names


def test_the_umask_is_told_in_octal(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started(["sh", "-c", 'umask 027; exec "$0" true', launcher], tree) as process:
        talk = master.accept()
        talk.say(exit_code(0))
        finish(process)
    assert talk.invocation["umask"] == b"027"


def test_stdout_and_stderr_in_one_file_are_told_to_be_one(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, "true"], tree, stderr=subprocess.STDOUT) as process:
        talk = master.accept()
        assert talk.invocation["merge"] == b"1"
        talk.say(frame("1", b"all"), exit_code(0))
        assert finish(process)[1] == b"all"
    with started([launcher, "true"], tree) as process:
        talk = master.accept()
        assert talk.invocation["merge"] == b"0"
        talk.say(exit_code(0))
        finish(process)


def test_one_terminal_for_all_is_one_file_and_can_be_read(launcher: Path, tree: Path, master: FakeMaster) -> None:
    leader, follower = pty.openpty()
    with started([launcher, "true"], tree, stdin=follower, stdout=follower, stderr=follower) as process:
        talk = master.accept()
        talk.say(exit_code(0))
        finish(process)
    os.close(leader)
    os.close(follower)
    assert (talk.invocation["merge"], talk.invocation["stdin"]) == (b"1", b"read")


def test_the_window_of_a_terminal_is_told_and_followed(launcher: Path, tree: Path, master: FakeMaster) -> None:
    leader, follower = pty.openpty()
    resize(follower, 33, 65535)
    with started([launcher, "true"], tree, stdout=follower) as process:
        talk = master.accept()
        assert talk.invocation["window"] == b"33:65535:0:0"
        for columns in (1, 20, 1000):
            resize(leader, 5, columns)
            process.send_signal(signal.SIGWINCH)  # no session has this terminal, so the kernel tells nobody
            assert talk.receive() == ("W", b"window=5:%d:0:0\0" % columns)
        talk.say(exit_code(4))
        assert finish(process)[0] == 4
    os.close(leader)
    os.close(follower)
    with started([launcher, "true"], tree) as process:
        talk = master.accept()
        assert talk.invocation.all("window") == []
        process.send_signal(signal.SIGWINCH)
        talk.say(exit_code(0))
        finish(process)


def test_one_terminal_is_one_however_it_was_opened(launcher: Path, tree: Path, master: FakeMaster) -> None:
    first, second = pty.openpty(), pty.openpty()
    name = os.ttyname(first[1])
    for redirected, merged in ((name, b"1"), ("/dev/tty", b"1"), (os.ttyname(second[1]), b"0")):
        script = ["setsid", "-w", "-c", "sh", "-c", f'"$0" true 2>{redirected}', str(launcher)]
        with started(script, tree, stdin=first[1], stdout=first[1]) as process:
            talk = master.accept()
            assert (talk.invocation["merge"], talk.invocation["err"]) == (merged, b"tty"), redirected
            talk.say(exit_code(0))
            process.wait(20)
    for fd in (*first, *second):
        os.close(fd)


def resize(fd: int, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


# -- finding the master -----------------------------------------------------------------------------------------------


def test_the_nearest_socket_upwards_is_the_master(launcher: Path, tree: Path, master: FakeMaster) -> None:
    below = tree / "a" / "b"
    below.mkdir(parents=True)
    (tree / "a" / ".termite-socket").write_text("a file is no socket")
    with started([launcher, "true"], below) as process:
        talk = master.accept()
        talk.say(exit_code(9))
        assert finish(process)[0] == 9
    assert talk.invocation["cwd"] == os.fsencode(below)


def test_a_named_socket_goes_before_the_nearest(launcher: Path, tree: Path, master: FakeMaster, tmp_path: Path) -> None:
    env = {"TERMITE_SOCKET": str(tmp_path / "other")}
    with FakeMaster(tmp_path / "other") as other, started([launcher, "true"], tree, env=env) as process:
        other.accept().say(exit_code(8))
        assert finish(process)[0] == 8


def test_an_empty_name_of_the_socket_means_no_master(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, "echo", "here"], tree, env={"TERMITE_SOCKET": "", "PATH": "/bin"}) as process:
        assert finish(process) == (0, b"here\n", b"")


def test_a_socket_with_a_very_long_path_is_reached(launcher: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tree / ("d" * 200) / ("e" * 200)
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)  # bind, too, refuses a long path
    with FakeMaster(Path(".termite-socket")) as master, started([launcher, "true"], deep) as process:
        master.accept().say(exit_code(7))
        assert finish(process)[0] == 7


@pytest.mark.attack
@pytest.mark.needs_root("gives a socket to another user")
def test_a_socket_of_another_user_is_not_our_master(launcher: Path, tree: Path, master: FakeMaster) -> None:
    os.chown(master.path, 4321, 4321)
    with started([launcher, "echo", "here"], tree) as process:
        assert finish(process) == (0, b"here\n", b"")


# -- output and ends --------------------------------------------------------------------------------------------------


def test_output_goes_to_where_it_belongs_in_order(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, "true"], tree) as process:
        talk = master.accept()
        talk.say(frame("1", b"a"), frame("2", b"x"), frame("1", b""), frame("1", b"b\0"), frame("N", b"termite: y\n"))
        talk.say(exit_code(0))
        assert finish(process) == (0, b"ab\0", b"xtermite: y\n")


def test_megabytes_of_output_pass_in_one_frame(launcher: Path, tree: Path, master: FakeMaster) -> None:
    text = os.urandom(3_000_000)
    with started([launcher, "true"], tree, stdout=os.open(tree / "out", os.O_CREAT | os.O_WRONLY)) as process:
        master.accept().say(frame("1", text), exit_code(3))
        assert finish(process)[0] == 3
    assert (tree / "out").read_bytes() == text


def test_output_passes_before_its_frame_is_complete(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, "true"], tree) as process:
        talk = master.accept()
        whole = frame("1", b"first second")
        talk.say(whole[:10])
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 100) == b"first"
        talk.say(whole[10:], exit_code(0))
        assert finish(process) == (0, b" second", b"")


def test_frames_may_come_byte_by_byte(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, "cat"], tree, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"input")
        process.stdin.close()
        process.stdin = None
        talk = master.accept()
        talk.say_bytewise(frame("1", b"one"), wish(size=3))
        assert talk.receive() == ("S", b"inp")
        talk.say_bytewise(frame("2", b"two"), exit_code(5))
        assert finish(process) == (5, b"one", b"two")


@pytest.mark.parametrize("code", [0, 1, 2, 77, 126, 127, 128, 255])
def test_it_exits_with_the_commands_code(launcher: Path, tree: Path, master: FakeMaster, code: int) -> None:
    with started([launcher, "true"], tree) as process:
        master.accept().say(exit_code(code))
        assert finish(process) == (code, b"", b"")


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM", "SIGINT", "SIGPIPE", "SIGABRT", "SIGALRM"])
def test_it_dies_of_the_commands_signal_and_dumps_no_core(
    launcher: Path, tree: Path, master: FakeMaster, name: str
) -> None:
    number = signal.Signals[name]
    with started(["sh", "-c", 'ulimit -c unlimited; exec "$0" true', launcher], tree) as process:
        master.accept().say(exit_signal(number))
        assert finish(process) == (-number, b"", b"")
    assert [path.name for path in tree.iterdir()] == [".termite-socket"]


# -- stdin ------------------------------------------------------------------------------------------------------------


def wish(**numbers: int) -> bytes:
    return frame("R", fields(*((key, str(number)) for key, number in numbers.items())))


def leaving(**numbers: int) -> bytes:
    """Return an exit frame with the position at which the job has left its stdin."""
    return frame("E", fields(*((key, str(number)) for key, number in numbers.items()), ("code", "0")))


def test_stdin_is_read_only_when_asked_and_only_as_much(launcher: Path, tree: Path, master: FakeMaster) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"abcdef")
    with started([launcher, "head", "-c2"], tree, stdin=reader) as process:
        talk = master.accept()
        assert talk.invocation["stdin"] == b"read"
        talk.say(wish(size=2))
        assert talk.receive() == ("S", b"ab")
        talk.say(exit_code(0))
        finish(process)
    os.close(writer)
    assert os.read(reader, 100) == b"cdef"
    os.close(reader)


@pytest.mark.parametrize("kind", ["ended", "full", "named"])
def test_a_pipe_is_called_ended_only_if_nothing_can_come_any_more(
    launcher: Path, tree: Path, master: FakeMaster, tmp_path: Path, kind: str
) -> None:
    if kind == "named":  # somebody may open it again
        os.mkfifo(tmp_path / "fifo")
        reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        writer = os.open(tmp_path / "fifo", os.O_WRONLY)
    else:
        reader, writer = os.pipe()
    if kind == "full":
        os.write(writer, b"x")
    os.close(writer)
    with started([launcher, "true"], tree, stdin=reader) as process:
        talk = master.accept()
        assert talk.invocation["stdin"] == (b"ended" if kind == "ended" else b"read")
        talk.say(exit_code(0))
        finish(process)
    os.close(reader)


def test_the_end_of_stdin_is_told_each_time_it_is_asked(launcher: Path, tree: Path, master: FakeMaster) -> None:
    reader, writer = os.pipe()
    os.close(writer)
    with started([launcher, "cat"], tree, stdin=reader) as process:
        talk = master.accept()
        for peek in (0, 1):
            talk.say(wish(size=65536, peek=peek))
            assert talk.receive()[1] == b""
        talk.say(exit_code(0))
        assert finish(process)[0] == 0
    os.close(reader)


def test_output_passes_while_stdin_is_awaited(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, "cat"], tree, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        talk = master.accept()
        talk.say(wish(size=256), frame("1", b"prompt> "))
        assert os.read(process.stdout.fileno(), 100) == b"prompt> "
        process.stdin.write(b"answer")
        process.stdin.flush()
        assert talk.receive() == ("S", b"answer")
        talk.say(exit_code(0))
        finish(process)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_peeked_stays_until_it_is_taken(launcher: Path, tree: Path, master: FakeMaster, kind: str) -> None:
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe() if kind == "pipe" else (theirs.detach(), ours.detach())
    os.write(writer, b"abcdefgh")
    with started([launcher, "cat"], tree, stdin=reader) as process:
        talk = master.accept()
        talk.say(wish(size=6, peek=1))
        assert talk.receive() == ("P", b"abcdef")
        talk.say(wish(taken=2, size=3, peek=1))
        assert talk.receive() == ("P", b"cde")
        talk.say(wish(taken=1), wish(size=2))
        assert talk.receive() == ("S", b"de")
        talk.say(wish(size=9, peek=1))
        assert talk.receive() == ("P", b"fgh")
        talk.say(leaving(stdin_taken=1))
        assert finish(process)[0] == 0
    assert os.read(reader, 100) == b"gh"
    os.close(reader)
    os.close(writer)


def test_dropping_what_somebody_else_has_taken_does_not_wait(launcher: Path, tree: Path, master: FakeMaster) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"ab")
    with started([launcher, "cat"], tree, stdin=reader) as process:
        master.accept().say(leaving(stdin_taken=1000))
        assert finish(process)[0] == 0
    os.close(writer)
    assert os.read(reader, 100) == b""
    os.close(reader)


def test_a_terminal_cannot_be_peeked_and_is_read(launcher: Path, tree: Path, master: FakeMaster) -> None:
    ours, theirs = os.openpty()
    os.write(ours, b"typed\n")
    with started([launcher, "cat"], tree, stdin=theirs) as process:
        talk = master.accept()
        assert talk.invocation["stdin"] == b"read"
        talk.say(wish(size=100, peek=1))
        assert talk.receive() == ("S", b"typed\n")
        talk.say(exit_code(0))
        finish(process)
    os.close(ours)
    os.close(theirs)


def test_a_read_that_nobody_waits_for_any_more_takes_nothing(launcher: Path, tree: Path, master: FakeMaster) -> None:
    reader, writer = os.pipe()
    with started([launcher, "cat"], tree, stdin=reader) as process:
        talk = master.accept()
        talk.say(wish(size=100), wish(size=0), wish(size=0), frame("1", b"."))
        assert talk.receive() == ("F", b"errno=%d\0" % errno.ECANCELED), "each wish has one answer"
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 1) == b"."
        os.write(writer, b"left")
        talk.say(exit_code(0))
        finish(process)
    assert os.read(reader, 100) == b"left"
    os.close(reader)
    os.close(writer)


def test_a_file_is_read_by_position_and_left_where_the_job_left_it(
    launcher: Path, tree: Path, master: FakeMaster
) -> None:
    (tree / "in").write_bytes(b"0123456789")
    (tree / "in").chmod(0o640)
    with open(tree / "in", "rb+", buffering=0) as file:
        file.seek(3)
        with started([launcher, "cat"], tree, stdin=file.fileno()) as process:
            talk = master.accept()
            status = os.fstat(file.fileno())
            said = {key: talk.invocation[f"stdin{key}"] for key in ("", "_size", "_mode", "_offset", "_mtime_ns")}
            assert said == {
                "": b"file",
                "_size": b"10",
                "_mode": b"100640",
                "_offset": b"3",
                "_mtime_ns": b"%d" % status.st_mtime_ns,
            }
            for offset, content in ((3, b"34"), (8, b"89"), (0, b"01"), (10, b"")):
                talk.say(wish(size=2, offset=offset))
                assert talk.receive() == ("S", content)
                assert file.tell() == 3
            talk.say(leaving(stdin_offset=7))
            finish(process)
        assert file.tell() == 7


@pytest.mark.parametrize(("redirection", "failure"), [("<.", errno.EISDIR), ("0>>out", errno.EBADF)])
def test_what_cannot_be_read_says_so(
    launcher: Path, tree: Path, master: FakeMaster, redirection: str, failure: int
) -> None:
    with started(["sh", "-c", f'exec "$0" cat {redirection}', launcher], tree) as process:
        talk = master.accept()
        assert talk.invocation["stdin"] == b"file"
        talk.say(wish(size=100, offset=0))
        assert talk.receive() == ("F", b"errno=%d\0" % failure)
        talk.say(exit_code(0))
        assert finish(process)[0] == 0


def test_after_only_peeking_the_command_can_run_here(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, "head", "-n1"], tree, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"line\n")
        process.stdin.flush()
        talk = master.accept()
        talk.say(wish(size=100, peek=1))
        assert talk.receive() == ("P", b"line\n")
        talk.vanish()
        assert finish(process)[:2] == (0, b"line\n")


@pytest.mark.parametrize("ending", [b"", frame("Z"), frame("R", b"size=x\0")], ids=["lost", "unknown", "wrong"])
def test_after_the_job_has_taken_what_it_was_shown_the_command_cannot_run_here(
    launcher: Path, tree: Path, master: FakeMaster, ending: bytes
) -> None:
    with started([launcher, "cat"], tree, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"firstsecond")
        process.stdin.flush()
        talk = master.accept()
        talk.say(wish(size=5, peek=1))
        assert talk.receive() == ("P", b"first")
        talk.say(wish(taken=5, size=6, peek=1))
        assert talk.receive() == ("P", b"second")
        talk.say(ending)
        talk.vanish()
        assert finish(process)[:2] == (102 if ending else 101, b"")


def test_a_wrong_exit_takes_nothing_of_stdin(launcher: Path, tree: Path, master: FakeMaster) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"line\n")
    with started([launcher, "cat"], tree, stdin=ours) as process:
        talk = master.accept()
        talk.say(wish(size=100, peek=1))
        assert talk.receive() == ("P", b"line\n")
        talk.say(frame("E", fields(("stdin_taken", "5"), ("code", "256"))))
        assert finish(process)[:2] == (102, b"")
    assert os.read(ours, 9) == b"line\n"
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(("redirection", "kind"), [("</dev/null", b"null"), ("<&-", b"closed")])
def test_no_stdin_is_told_as_such(
    launcher: Path, tree: Path, master: FakeMaster, redirection: str, kind: bytes
) -> None:
    with started(["sh", "-c", f'exec "$0" true {redirection}', launcher], tree) as process:
        talk = master.accept()
        assert talk.invocation["stdin"] == kind
        talk.say(frame("1", b"out"), exit_code(0))
        assert finish(process) == (0, b"out", b"")


# -- verdicts for here ------------------------------------------------------------------------------------------------

SHOW = ["sh", "-c", 'echo "$LD_PRELOAD|$TERMITE_PRELOAD|$TERMITE_LAUNCHER|$MARK|$0"', "zero"]
SET_UP = {"PATH": "/usr/bin:/bin", "TERMITE_PRELOAD": "/nowhere/t.so", "TERMITE_LAUNCHER": "/nowhere/termite"}


def test_exec_makes_it_the_command_without_our_set_up(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, *SHOW], tree, env=SET_UP | {"LD_PRELOAD": "/nowhere/t.so"}) as process:
        talk = master.accept()
        talk.say(frame("X", fields(("recurse", "0"), ("env", "MARK=set"), ("unknown", "key"))))
        status, out, _ = finish(process)
        assert (status, out) == (0, b"|||set|zero\n")
        assert talk.is_closed()


def test_recurse_puts_our_library_in_front_of_the_users(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, *SHOW], tree, env=SET_UP | {"LD_PRELOAD": "/nowhere/mine.so"}) as process:
        master.accept().say(frame("X", fields(("recurse", "1"))))
        assert finish(process)[1] == b"/nowhere/t.so:/nowhere/mine.so|/nowhere/t.so|/nowhere/termite||zero\n"


# -- not found, not called ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"/build/project\n", b"/build/project", b"", b"\x1b[31m\n", b"x" * 5000])
def test_without_a_master_a_tree_of_another_path_is_refused(launcher: Path, tree: Path, content: bytes) -> None:
    (tree / ".termite-at").write_bytes(content)
    (tree / "sub").mkdir()
    done = subprocess.run([launcher, "touch", "made"], cwd=tree / "sub", capture_output=True, timeout=20)
    path = content.split(b"\n")[0].replace(b"\x1b", b"?")[:4095]
    said = b"termite: %b is built at %b, not at its own path; use --at %b\n" % (os.fsencode(tree), path, path)
    assert (done.returncode, done.stdout, done.stderr) == (106, b"", said)
    assert not (tree / "sub" / "made").exists()
    env = {**os.environ, "TERMITE": "off"}
    assert subprocess.run([launcher, "touch", "made"], cwd=tree / "sub", env=env, timeout=20).returncode == 0


def test_without_a_master_a_tree_that_stands_at_its_path_is_built(launcher: Path, tree: Path) -> None:
    (tree / ".termite-at").write_bytes(os.fsencode(tree) + b"\n")
    (tree / "sub").mkdir()
    done = subprocess.run([launcher, "pwd"], cwd=tree / "sub", capture_output=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, os.fsencode(tree / "sub") + b"\n", b"")


@pytest.mark.needs_root("gives a mark to another user")
@pytest.mark.parametrize("kind", ["file", "symlink", "directory"])
def test_without_a_master_a_mark_of_another_user_in_a_directory_of_all_is_ignored(
    launcher: Path, tree: Path, kind: str
) -> None:
    mark = tree / ".termite-at"
    match kind:
        case "file":
            mark.write_text("/build/p\n")
        case "symlink":
            mark.symlink_to("/etc/hostname")
        case "directory":
            mark.mkdir()
    os.chown(mark, 61000, 61000, follow_symlinks=False)
    (tree / "sub").mkdir()
    for mode, code in ((0o755, 106), (0o1777, 0)):
        tree.chmod(mode)
        assert subprocess.run([launcher, "true"], cwd=tree / "sub", timeout=20).returncode == code


def test_without_a_master_it_is_the_command(launcher: Path, tree: Path) -> None:
    with started([launcher, "sh", "-c", 'echo "$0 $1 $$"; exit 6', "a", "b"], tree) as process:
        assert finish(process) == (6, f"a b {process.pid}\n".encode(), b"")


def test_a_socket_that_nobody_listens_at_is_no_master(launcher: Path, tree: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tree / ".termite-socket"))
    with started([launcher, "echo", "here"], tree) as process:
        assert finish(process) == (0, b"here\n", b"")


def test_a_command_that_cannot_be_executed_fails_as_in_a_shell(launcher: Path, tree: Path) -> None:
    (tree / "plain").write_text("text")
    (tree / "plain").chmod(0o644)
    cases = {
        ("nosuch",): (127, "termite: nosuch: No such file or directory\n"),
        ("./plain",): (126, "termite: ./plain: Permission denied\n"),
        ("--preload=make", "--exe=/nosuch", "--search=0", "--", "x"): (
            127,
            "make: /nosuch: No such file or directory\n",
        ),
    }
    for words, (code, message) in cases.items():
        with started([launcher, *words], tree) as process:
            assert finish(process) == (code, b"", message.encode())


@pytest.mark.parametrize("content", [b"\x7fELF\2\1garbage\n", b"\x7fELF", b"echo \0\n", b"\xca\xfe\0\xbe"])
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_broken_program_is_no_script_as_in_a_shell(launcher: Path, tree: Path, content: bytes, shell: str) -> None:
    (tree / "broken").write_bytes(content)
    (tree / "broken").chmod(0o755)
    assert subprocess.run([shell, "-c", "./broken"], cwd=tree, capture_output=True, check=False).returncode == 126
    for words, path in ((["./broken"], "."), (["broken"], str(tree))):
        with started([launcher, *words], tree, env={"PATH": path}) as process:
            assert finish(process) == (126, b"", f"termite: {words[0]}: Exec format error\n".encode())


def test_a_script_without_interpreter_runs_as_in_a_shell(launcher: Path, tree: Path) -> None:
    (tree / "script").write_text("echo script $1\n")
    (tree / "script").chmod(0o755)
    with started([launcher, "./script", "one"], tree) as process:
        assert finish(process) == (0, b"script one\n", b"")


@pytest.mark.parametrize(
    "path",
    ["one:two", "two:one", "one:none", "one", ":two", "two:", "none:one::two", "plain", "loop:two", None],
)
@pytest.mark.parametrize("name", ["denied", "found", "script", "directory", "loop", "broken", "n" * 256, "", "true"])
def test_a_command_is_looked_for_as_execvp_does_it(launcher: Path, tree: Path, path: str | None, name: str) -> None:
    """Compare with env(1), which searches with execvp of the system's C library."""
    for directory in ("one", "two", "directory", "one/directory"):
        (tree / directory).mkdir()
    (tree / "one/denied").write_text("not for you")
    (tree / "two/denied").symlink_to("/bin/true")
    (tree / "two/found").write_text("#!/bin/sh\necho two $0 $1\n")
    (tree / "found").write_text("#!/bin/sh\necho here $0 $1\n")
    (tree / "two/script").write_text('echo "script $0 $1 $#"\n')
    (tree / "one/broken").write_text("#!/no/such/interpreter\n")
    (tree / "plain").write_text("")
    (tree / "loop").symlink_to("loop")
    (tree / "two/loop").symlink_to("loop")
    for file in ("two/found", "found", "two/script", "one/broken"):
        (tree / file).chmod(0o755)
    env = {} if path is None else {"PATH": path}
    seen = [
        subprocess.run([program, name, "an argument"], cwd=tree, env=env, capture_output=True, text=True, check=False)
        for program in ("/usr/bin/env", launcher)
    ]
    plain, ours = [(done.returncode > 0, done.stdout, done.stderr.strip().rsplit(": ", 1)[-1]) for done in seen]
    assert ours == plain  # without the choice between 126 and 127, in which make and env(1) differ


def test_a_blocked_signal_stays_blocked_in_the_command(launcher: Path, tree: Path, master: FakeMaster) -> None:
    """Block every signal that can be blocked, and those that a C library reserves."""
    block = "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))"
    script = f"import os, signal, sys; {block}; os.execv(sys.argv[1], sys.argv[1:])"
    words = [sys.executable, "-c", script, str(launcher), "grep", "SigBlk", "/proc/self/status"]
    with started(words, tree) as process:
        master.accept().say(frame("X"))
        assert finish(process)[1] == b"SigBlk:\tfffffffe7ffbfeff\n"


def test_a_command_whose_output_is_closed_sees_that_itself(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started(["sh", "-c", '"$0" echo x >&-; echo $?', launcher], tree) as process:
        status, out, err = finish(process)
        assert (status, out) == (0, b"1\n")
        assert b"write error" in err


def test_a_working_directory_that_is_gone_does_not_stop_it(launcher: Path, tree: Path) -> None:
    script = 'mkdir gone; cd gone; rmdir ../gone; exec "$0" echo here'
    with started(["sh", "-c", script, launcher], tree) as process:
        assert finish(process) == (0, b"here\n", b"")


def test_help_and_version_are_for_people(launcher: Path, tree: Path) -> None:
    with started([launcher, "--help"], tree) as process:
        status, out, _ = finish(process)
        assert (status, out.split(b"\n")[0]) == (0, b"usage: termite COMMAND [ARGUMENT...]")
    with started([launcher, "--version"], tree) as process:
        assert finish(process)[1].startswith(b"termite 0.")
    shell = launcher.with_name("termite-shell")
    with started([shell, "--version"], tree, env={"TERMITE_SHELL": "/bin/bash"}) as process:
        _, out, err = finish(process)
        assert out.startswith(b"GNU bash") and err.startswith(b"termite: termite-shell 0."), out
    with started([launcher], tree) as process:
        assert finish(process) == (100, b"", b"termite: no command given (see termite --help)\n")
    with started([launcher, "--frobnicate", "x"], tree) as process:
        assert finish(process) == (100, b"", b"termite: no such option: --frobnicate (see termite --help)\n")


def test_nothing_of_ours_stays_open_in_the_command(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, "ls", "/proc/self/fd"], tree) as process:
        master.accept().say(frame("X"))
        assert finish(process)[1].split() == [b"0", b"1", b"2", b"3"]  # 3 is ls reading the directory
