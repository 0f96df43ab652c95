"""The launcher in trouble: signals, a lost or faulty master, output that cannot be written."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from termite.engine.decide.logic.switches import ignored_settings
from tests.native.fake_master import Conversation, FakeMaster, exit_code, fields, finish, frame, started

COMMAND = ["echo", "run here"]


# -- a master that vanishes -------------------------------------------------------------------------------------------


def test_before_any_output_a_lost_master_costs_nothing_but_a_line(
    launcher: Path, tree: Path, master: FakeMaster
) -> None:
    with started([launcher, *COMMAND], tree) as process:
        master.accept().vanish()
        status, out, err = finish(process)
    assert (status, out) == (0, b"run here\n")
    assert err == b"termite: 1 command runs on this machine: the master went away: echo\n"


def test_a_notice_is_not_output(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, *COMMAND], tree) as process:
        talk = master.accept()
        talk.say(frame("N", b"a notice\n"), frame("1", b""))
        talk.vanish()
        assert finish(process)[:2] == (0, b"run here\n")


def test_a_command_that_has_the_network_does_not_run_again(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, *COMMAND], tree) as process:
        talk = master.accept()
        talk.say(frame("O", b""))
        talk.vanish()
        status, out, err = finish(process)
    assert (status, out) == (101, b"")
    assert err == b"termite: the master went away while the command was running: echo\n"


def test_a_command_that_got_the_network_nowhere_runs_here(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, *COMMAND], tree) as process:
        talk = master.accept()
        talk.say(frame("O", b""), frame("X", fields(("recurse", "0"))))
        assert finish(process)[:2] == (0, b"run here\n")


def test_after_other_output_a_lost_master_is_told_by_the_exit_code(
    launcher: Path, tree: Path, master: FakeMaster
) -> None:
    with started([launcher, *COMMAND], tree) as process:
        talk = master.accept()
        talk.say(frame("1", b"some"))
        talk.vanish()
        status, out, err = finish(process)
    assert (status, out) == (101, b"some")
    assert err.startswith(b"termite: 1 command runs on this machine: the master went away: echo\n")


def test_after_stdin_was_read_the_command_cannot_run_again(launcher: Path, tree: Path, master: FakeMaster) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"text")
    with started([launcher, "cat"], tree, stdin=reader) as process:
        talk = master.accept()
        talk.say(frame("R", fields(("size", "256"))))
        assert talk.receive() == ("S", b"text")
        talk.vanish()
        assert finish(process)[:2] == (101, b"")
    os.close(reader)
    os.close(writer)


ENDING = frame("2", b"text") + exit_code(4)


@pytest.mark.parametrize("cut", range(len(ENDING)))
def test_a_conversation_may_be_cut_anywhere(launcher: Path, tree: Path, master: FakeMaster, cut: int) -> None:
    with started([launcher, *COMMAND], tree) as process:
        talk = master.accept()
        talk.say(ENDING[:cut])
        talk.vanish()
        status, out, err = finish(process)
    shown = cut > 5  # a byte of the text came, which the command does not write here
    assert (status, out) == (101 if shown else 0, b"run here\n")
    assert err.startswith(b"text"[: max(0, cut - 5)] + b"termite: ")


def test_a_verdict_cut_short_is_no_verdict(launcher: Path, tree: Path, master: FakeMaster) -> None:
    whole = frame("X", fields(("recurse", "1")))
    for cut in range(len(whole)):
        with started([launcher, *COMMAND], tree) as process:
            talk = master.accept()
            talk.say(whole[:cut])
            talk.vanish()
            assert finish(process)[:2] == (0, b"run here\n")


# -- nonsense ---------------------------------------------------------------------------------------------------------

NONSENSE = {
    "an unknown frame": frame("Z", b"?"),
    "a huge exec": b"\xff\xff\xff\xff" + b"X" + b"x" * 70_000,
    "fields without an end": frame("E", b"code=1"),
    "fields without a key": frame("E", b"code\0"),
    "an exit without code": frame("E", b""),
    "an exit code out of range": frame("E", b"code=256\0"),
    "an exit code beyond an int": frame("E", b"code=4294967296\0"),
    "an empty exit code": frame("E", b"code=\0"),
    "an exit code with a rest": frame("E", b"code=0x\0"),
    "an exit code with a sign": frame("E", b"code=+0\0"),
    "a signal with a rest": frame("E", b"signal=0x\0code=0\0"),
    "a wrong position beside a code": frame("E", b"stdin_offset=-1\0code=0\0"),
    "a signal that is none": frame("E", b"signal=99\0"),
    "a negative signal": frame("E", b"signal=-1\0"),
    "a read that is no fields": frame("R", b"\1"),
    "a read of no number": frame("R", b"size=many\0"),
    "a read at a negative place": frame("R", b"size=1\0offset=-2\0"),
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
def test_a_master_that_talks_nonsense_is_left_alone(
    launcher: Path, tree: Path, master: FakeMaster, nonsense: bytes
) -> None:
    """After an exit, even a wrong one, the job has happened, and its command must not run again."""
    is_exit = nonsense[4:5] == b"E"
    with started([launcher, *COMMAND], tree) as process:
        talk = master.accept()
        talk.say(nonsense)
        assert finish(process)[:2] == ((102, b"") if is_exit else (0, b"run here\n"))
    with started([launcher, *COMMAND], tree) as process:
        talk = master.accept()
        talk.say(frame("1", b"run"), nonsense)
        assert finish(process)[:2] == ((102, b"run") if is_exit else (0, b"run here\n"))
    with started([launcher, "cat"], tree, stdin=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(b"x")
        process.stdin.flush()
        talk = master.accept()
        talk.say(frame("R", fields(("size", "256"))))
        assert talk.receive() == ("S", b"x")
        talk.say(nonsense)
        assert finish(process)[:2] == (102, b"")


# -- TERMITE_LOCAL=never ----------------------------------------------------------------------------------------------


@pytest.fixture
def never(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbid local runs. `tree` comes first, because it removes such variables."""
    monkeypatch.setenv("TERMITE_LOCAL", "never")


def refused(reason: str) -> tuple[int, bytes, bytes]:
    line = f"termite: {reason}; TERMITE_LOCAL=never forbids running the command on this machine: touch\n"
    return 103, b"", line.encode()


@pytest.mark.usefixtures("never")
def test_where_local_is_forbidden_no_master_is_an_error(
    launcher: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = tree / "termite-shell"
    shell.symlink_to(launcher)
    for options in ((), ("--preload=make", "--exe=/bin/touch", "--")):
        with started([launcher, *options, "touch", "made"], tree) as process:
            assert finish(process) == refused("no master serves this directory (termite-ctl start starts one)")
    with started([shell, "-c", "touch made"], tree) as process:
        assert finish(process)[0] == 103
    monkeypatch.setenv("TERMITE_SOCKET", "")
    with started([launcher, "touch", "made"], tree) as process:
        assert finish(process)[0] == 103
    assert not (tree / "made").exists()


@pytest.mark.usefixtures("never")
def test_where_local_is_forbidden_a_dead_masters_socket_is_an_error(launcher: Path, tree: Path) -> None:
    left = tree / ".termite-socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left))
    with started([launcher, "touch", "made"], tree) as process:
        assert finish(process) == refused(f"no master answers (termite-ctl start starts one) at {left}")
    assert not (tree / "made").exists()


@pytest.mark.usefixtures("never")
def test_where_local_is_forbidden_a_lost_master_is_an_error(launcher: Path, tree: Path, master: FakeMaster) -> None:
    for said in (b"", frame("N", b""), frame("X")[:3]):
        with started([launcher, "touch", "made"], tree) as process:
            talk = master.accept()
            talk.say(said)
            talk.vanish()
            assert finish(process) == refused("the master went away (termite-ctl start starts one)")
    assert not (tree / "made").exists()


@pytest.mark.usefixtures("never")
@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
def test_where_local_is_forbidden_a_master_that_talks_nonsense_is_an_error(
    launcher: Path, tree: Path, master: FakeMaster, nonsense: bytes
) -> None:
    with started([launcher, "touch", "made"], tree) as process:
        master.accept().say(nonsense)
        if nonsense[4:5] == b"E":
            assert finish(process)[0] == 102, "it has happened elsewhere"
        else:
            assert finish(process) == refused("the master speaks another protocol (termite-ctl shutdown ends it)")
    assert not (tree / "made").exists()


@pytest.mark.usefixtures("never")
def test_where_local_is_forbidden_what_only_here_can_be_done_right_is_an_error(
    launcher: Path, tree: Path, master: FakeMaster
) -> None:
    with started(["sh", "-c", 'exec "$0" touch made >&-', launcher], tree) as process:
        assert finish(process) == refused("stdout or stderr is closed, which a command on a worker would not notice")
    gone = 'mkdir gone; cd gone; rmdir ../gone; exec "$0" touch ../made'
    with started(["sh", "-c", gone, launcher], tree) as process:
        assert finish(process) == refused("cannot determine the working directory: No such file or directory")
    assert not (tree / "made").exists()


@pytest.mark.usefixtures("never")
@pytest.mark.parametrize("length", [127, 253, 255, 1001])
def test_where_local_is_forbidden_a_script_with_a_long_interpreter_does_not_run(
    launcher: Path, tree: Path, length: int
) -> None:
    """The kernel takes interpreters of up to 253 bytes. Shells run the other scripts themselves."""
    (tree / "touch").write_text(f"#!/bin/{'./' * ((length - 7) // 2)}sh\ntouch made\n")
    (tree / "touch").chmod(0o755)
    with started([launcher, "--preload=make", "--exe=./touch", "--", "touch"], tree) as process:
        assert finish(process) == refused("no master serves this directory (termite-ctl start starts one)")
    assert not (tree / "made").exists()


@pytest.mark.usefixtures("never")
def test_what_a_master_places_here_runs_here_though_local_is_forbidden(
    launcher: Path, tree: Path, master: FakeMaster
) -> None:
    with started([launcher, *COMMAND], tree) as process:
        master.accept().say(frame("X"))
        assert finish(process) == (0, b"run here\n", b"")


@pytest.mark.parametrize(
    ("word", "said"),
    [("", b""), ("nver", b"termite: TERMITE_LOCAL=nver is ignored: write TERMITE_LOCAL=never\n")],
)
def test_a_word_that_means_nothing_is_told_where_it_would_matter(
    launcher: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, word: str, said: bytes
) -> None:
    monkeypatch.setenv("TERMITE_LOCAL", word)
    with started([launcher, *COMMAND], tree) as process:
        status, out, err = finish(process)
    assert (status, out) == (0, b"run here\n")
    assert err.startswith(said) and err.count(b"\n") == bool(said)


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("TERMITE_SHORT=abc", "TERMITE_SHORT=abc is ignored: write a number of milliseconds or TERMITE_SHORT=auto"),
        ("TERMITE_SHORT=atuo", "TERMITE_SHORT=atuo is ignored: write TERMITE_SHORT=auto"),
        ("TERMITE_TMP=x", "TERMITE_TMP=x is ignored: write TERMITE_TMP=shared or TERMITE_TMP=private"),
        (
            "TERMITE_CACHE=1",
            "TERMITE_CACHE=1 is ignored: write TERMITE_CACHE=on or TERMITE_CACHE=read or TERMITE_CACHE=off",
        ),
        ("TERMITE_SHROT=1", "TERMITE_SHROT is ignored: write TERMITE_SHORT"),
        ("TERMITE_env-exclude=", "TERMITE_env-exclude is ignored: write TERMITE_ENV_EXCLUDE"),
        ("TERMITE_VERB=1", "TERMITE_VERB is ignored: write TERMITE_VERBOSE"),
        ("TERMITE_SUM=x", "TERMITE_SUM is ignored: write TERMITE_SUMMARY"),
        ("TERMITE_SH=1", "TERMITE_SH is ignored: write TERMITE_SHELL"),
        ("TERMITE__tmp=1", "TERMITE__tmp is ignored: write TERMITE_TMP"),
        ("TERMITE_TMP=pri", "TERMITE_TMP=pri is ignored: write TERMITE_TMP=private"),
        ("TERMITE_S=1", ""),
        (f"TERMITE_{'R' * 64}=1", ""),
        (f"TERMITE_{'R' * 4000}=1", ""),
        ("TERMITE_=1", ""),
        ("TERMITE_MINE=1", ""),
        ("TERMITE_TMP=shared", ""),
        ("TERMITE_SHORT=2.5", ""),
        ("TERMITES=of", ""),
    ],
)
def test_a_misspelt_variable_gets_the_line_that_the_programs_in_python_give(
    launcher: Path, tree: Path, setting: str, line: str
) -> None:
    name, _, value = setting.partition("=")
    assert ignored_settings({name: value}) == line
    with started([launcher, *COMMAND], tree, env={**os.environ, name: value}) as process:
        assert finish(process) == (0, b"run here\n", f"termite: {line}\n".encode() if line else b"")


# -- TERMITE=off ------------------------------------------------------------------------------------------------------


def test_switched_off_the_launcher_is_the_command_and_asks_no_master(
    launcher: Path, tree: Path, master: FakeMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERMITE", "off")
    monkeypatch.setenv("TERMITE_LOCAL", "never")  # what is switched off forbids nothing
    shell = tree / "termite-shell"
    shell.symlink_to(launcher)
    for words in ((launcher, "sh", "-c"), (shell, "-c")):
        with started([*words, "echo out; exit 7"], tree) as process:
            assert finish(process) == (7, b"out\n", b"")
    with started([launcher, "no-such-program"], tree) as process:
        assert finish(process)[0] == 127
    master._listener.settimeout(0.1)
    with pytest.raises(TimeoutError):
        master.accept()


@pytest.mark.parametrize(
    ("word", "said"),
    [("", b""), ("of", b"termite: TERMITE=of is ignored: write TERMITE=off\n")],
)
def test_another_word_does_not_switch_it_off(
    launcher: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, word: str, said: bytes
) -> None:
    monkeypatch.setenv("TERMITE", word)
    with started([launcher, *COMMAND], tree) as process:
        assert finish(process) == (0, b"run here\n", said)
    with FakeMaster(tree / ".termite-socket") as there, started([launcher, *COMMAND], tree) as process:
        there.accept().say(exit_code(3))
        assert finish(process) == (3, b"", b"")


# -- signals ----------------------------------------------------------------------------------------------------------


def cancel(talk: Conversation) -> bytes:
    kind, payload = talk.receive()
    assert kind == "K"
    return payload


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"])
def test_a_signal_stops_the_job_and_then_the_launcher(
    launcher: Path, tree: Path, master: FakeMaster, name: str
) -> None:
    number = signal.Signals[name]
    with started([launcher, "sleep", "9"], tree) as process:
        talk = master.accept()
        talk.say(frame("1", b"before "))
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 100) == b"before "
        process.send_signal(number)
        assert cancel(talk) == f"signal={number:02d}\0".encode()
        talk.say(frame("1", b"after"), exit_code(0))
        assert finish(process) == (-number, b"after", b"")
    assert sorted(path.name for path in tree.iterdir()) == [".termite-socket"]


def wait_for_handlers(talk: Conversation, process: subprocess.Popen[bytes]) -> None:
    """Wait until the launcher has its signal handlers, which is before it passes on any output."""
    talk.say(frame("1", b"!"))
    assert process.stdout is not None
    assert os.read(process.stdout.fileno(), 1) == b"!"


def test_a_second_signal_ends_it_at_once(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, "sleep", "9"], tree) as process:
        talk = master.accept()
        wait_for_handlers(talk, process)
        process.send_signal(signal.SIGINT)
        cancel(talk)
        process.send_signal(signal.SIGTERM)
        assert finish(process)[0] == -signal.SIGTERM


def test_a_master_that_does_not_stop_the_job_is_not_waited_for_long(
    launcher: Path, tree: Path, master: FakeMaster
) -> None:
    with started([launcher, "sleep", "9"], tree) as process:
        talk = master.accept()
        wait_for_handlers(talk, process)
        process.send_signal(signal.SIGINT)
        cancel(talk)
        assert finish(process)[0] == -signal.SIGINT


def test_a_master_that_vanishes_after_a_cancel_does_not_make_the_command_run(
    launcher: Path, tree: Path, master: FakeMaster
) -> None:
    with started([launcher, "touch", "made"], tree) as process:
        talk = master.accept()
        talk.say(frame("N", b"!"))
        assert process.stderr is not None
        assert os.read(process.stderr.fileno(), 1) == b"!"
        process.send_signal(signal.SIGTERM)
        cancel(talk)
        talk.vanish()
        assert finish(process) == (-signal.SIGTERM, b"", b"")
    assert not (tree / "made").exists()


def test_a_verdict_that_crosses_a_cancel_is_not_obeyed(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, "touch", "made"], tree) as process:
        talk = master.accept()
        wait_for_handlers(talk, process)
        process.send_signal(signal.SIGINT)
        cancel(talk)
        talk.say(frame("X"))
        assert finish(process)[0] == -signal.SIGINT
    assert not (tree / "made").exists()


def test_a_signal_is_heard_while_nobody_takes_the_output(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started([launcher, "yes"], tree) as process:
        talk = master.accept()
        wait_for_handlers(talk, process)
        talk.say(frame("1", b"y\n" * 50_000))  # more than a pipe holds
        process.send_signal(signal.SIGINT)
        cancel(talk)
        talk.say(exit_code(0))
        assert finish(process)[0] == -signal.SIGINT


def test_an_ignored_signal_stays_ignored(launcher: Path, tree: Path, master: FakeMaster) -> None:
    with started(["sh", "-c", 'trap "" INT HUP; exec "$0" true', launcher], tree) as process:
        talk = master.accept()
        wait_for_handlers(talk, process)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGHUP)
        talk.say(exit_code(4))
        assert finish(process)[0] == 4
        assert talk.is_closed()


def test_a_command_here_has_the_signals_it_would_have_had(launcher: Path, tree: Path, master: FakeMaster) -> None:
    show = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]
    plain = subprocess.run(show, capture_output=True, check=True).stdout
    with started([launcher, *show], tree) as process:
        master.accept().say(frame("X"))
        assert finish(process)[1] == plain


# -- output that cannot be written ------------------------------------------------------------------------------------


def test_output_that_nobody_reads_stops_the_job_and_kills_by_sigpipe(
    launcher: Path, tree: Path, master: FakeMaster
) -> None:
    reader, writer = os.pipe()
    with started([launcher, "yes"], tree, stdout=writer) as process:
        os.close(writer)
        talk = master.accept()
        os.close(reader)
        talk.say(frame("1", b"y\n"), frame("1", b"y\n"), frame("2", b"still heard"))
        assert cancel(talk) == b"signal=13\0"
        talk.say(exit_code(0))
        assert process.wait(20) == -signal.SIGPIPE


def test_where_sigpipe_is_ignored_a_broken_pipe_is_a_write_error(
    launcher: Path, tree: Path, master: FakeMaster
) -> None:
    reader, writer = os.pipe()
    with started([launcher, "yes"], tree, stdout=writer, restore_signals=False) as process:
        os.close(writer)
        talk = master.accept()
        os.close(reader)
        talk.say(frame("1", b"y\n"))
        cancel(talk)
        talk.say(exit_code(0))
        status, _, err = finish(process)
        assert (status, err) == (1, b"termite: cannot write the output of yes: Broken pipe\n")


def test_a_full_disk_stops_the_job_with_a_write_error(launcher: Path, tree: Path, master: FakeMaster) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with started([launcher, "yes"], tree, stdout=full) as process:
        os.close(full)
        talk = master.accept()
        talk.say(frame("1", b"y\n"))
        cancel(talk)
        talk.say(exit_code(0))
        status, _, err = finish(process)
        assert (status, err) == (1, b"termite: cannot write the output of yes: No space left on device\n")


def test_a_pipe_that_does_not_block_is_waited_for(launcher: Path, tree: Path, master: FakeMaster) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with started([launcher, "yes"], tree, stdout=writer) as process:
        os.close(writer)
        talk = master.accept()
        talk.say(frame("1", b"y" * 150_000), exit_code(0))
        taken = 0
        while piece := os.read(reader, 65536):
            taken += len(piece)
        os.close(reader)
        assert (taken, process.wait(20)) == (150_000, 0)
