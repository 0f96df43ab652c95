"""A command whose launcher is at a terminal has one on the worker, and writes as it does here."""

import os
import shutil
import signal
import time

import pytest

from tests.e2e.cluster import Tree
from tests.e2e.terminal_projects import PROJECTS
from tests.e2e.terminals import on_terminal, shown

NEVER = {"TERMITE_LOCAL": "never"}


@pytest.mark.parametrize("name", PROJECTS)
def test_a_project_built_on_a_terminal_writes_the_bytes_of_a_plain_build(tree: Tree, name: str) -> None:
    project = PROJECTS[name]
    for file, content in project.files.items():
        tree.write(f"p/{file}", content)
    within = tree.subtree("p")

    def build(before: str) -> list[tuple[int, bytes]]:
        """Build it afresh, at the same place, because some tools name it."""
        for path in [path for path in within.path.iterdir() if path.name not in project.files]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        ends = [shown(tree.where, [before + command[0], *command[1:]], within.path) for command in project.commands]
        return [(code, project.same(text)) for code, text in ends]

    plain, jobs = build(""), tree.jobs()
    assert build(tree.where.termite("termite-")) == plain
    assert tree.jobs() - jobs >= project.jobs
    whole = b"".join(text for _, text in plain)
    assert [mark for mark in project.marks if mark not in whole] == [], whole


def test_each_stream_is_what_it_is_here(tree: Tree) -> None:
    tests = "for n in 0 1 2; do test -t $n; printf $?; done; ps -o tty= -p $$ | grep -c pts; tty; stty size; "
    script = tests + "echo /dev/pts/*; printf 'tab\\tend\\n'; : </dev/tty && echo open; echo err >&2"
    termite = tree.where.termite("termite")
    here = shown(tree.where, ["sh", "-c", tests + "printf 'tab\\tend\\n'; : </dev/tty && echo open"], tree.path)
    code, text = shown(tree.where, [termite, "sh", "-c", script], tree.path, env=NEVER)
    assert (code, text.split(b"\r\n")) == (
        0,
        [b"0001", b"/dev/pts/0", b"33 77", b"/dev/pts/0 /dev/pts/ptmx", b"tab\tend", b"open", b"err", b""],
    )
    assert here[1].startswith(b"0001\r\n") and here[1].endswith(b"\r\n33 77\r\ntab\tend\r\nopen\r\n")
    reader, writer = os.pipe()
    code, text = shown(tree.where, [termite, "sh", "-c", tests + "echo err >&2"], tree.path, env=NEVER, stderr=writer)
    os.close(writer)
    assert (code, text.startswith(b"0011\r\n")) == (0, True), text
    assert os.read(reader, 100) == b"err\n"
    os.close(reader)
    with open("/dev/null", "rb") as null:
        assert shown(tree.where, [termite, "sh", "-c", tests], tree.path, env=NEVER, stdin=null.fileno())[1][:6] in (
            b"1001\r\n",
            b"1000\r\n",
        )
    assert tree.termite("sh", "-c", "test -t 0 || test -t 1 || test -t 2 || : </dev/tty", env=NEVER).code != 0


def test_output_comes_at_once_and_the_window_is_followed(tree: Tree) -> None:
    script = "trap 'stty size; exit 5' WINCH; date +ready%s.%N; while :; do sleep 0.1; done"
    argv = [tree.where.termite("termite"), "sh", "-c", script]
    with on_terminal(tree.where, argv, tree.path, env=NEVER) as terminal:
        terminal.read_until(b"ready")
        assert time.time() - float(terminal.read_until(b"\r\n")) < 0.5
        terminal.resize(11, 222)
        assert terminal.finish() == (5, b"11 222\r\n")


def test_ctrl_c_ends_the_command(tree: Tree) -> None:
    argv = [tree.where.termite("termite"), "sh", "-c", "echo ready; sleep 100"]
    with on_terminal(tree.where, argv, tree.path, env=NEVER) as terminal:
        terminal.read_until(b"ready\r\n")
        terminal.type(b"\x03")
        code, text = terminal.finish()
    assert code == -signal.SIGINT
    # The death of a session's leader hangs the terminal up, and what nobody has read is lost.
    assert text in (b"^C", b"")


@pytest.mark.parametrize(
    "how",
    [
        "read name",
        "read name </dev/tty",
        "stty -echo; read name",
        "python3 -c 'import select; select.select([0], [], [])'; read name",
    ],
)
def test_a_command_that_reads_from_its_terminal_runs_here(tree: Tree, how: str) -> None:
    script = f"printf 'name? '; echo run >>log; {how}; echo got $name; stty echo"
    with on_terminal(tree.where, [tree.where.termite("termite"), "sh", "-c", script], tree.path) as terminal:
        assert b"name? " in terminal.read_until(b"output above is of its first run\r\n")
        terminal.read_until(b"name? ")
        terminal.type(b"joe\n")
        code, text = terminal.finish()
    assert code == 0 and b"got joe" in text, text
    assert (tree.path / "log").read_text() == "run\n"


def test_a_command_that_reads_and_may_not_run_here_says_so(tree: Tree) -> None:
    code, text = shown(tree.where, [tree.where.termite("termite"), "cat"], tree.path, env=NEVER)
    assert code == 103
    assert b"termite: reads from the terminal; TERMITE_LOCAL=never forbids running" in text


def test_the_terminals_of_other_jobs_cannot_be_opened(tree: Tree) -> None:
    argv = [
        tree.where.termite("termite"),
        "sh",
        "-c",
        "echo mine >/dev/pts/0; echo ready; sleep 100",
    ]
    with on_terminal(tree.where, argv, tree.path, env=NEVER) as terminal:
        terminal.read_until(b"ready\r\n")
        for device in ("/dev/pts/0", "/dev/tty"):
            assert tree.termite("sh", "-c", f"echo other >{device}", env=NEVER).code != 0
        terminal.type(b"\x03")
        assert terminal.finish() == (-signal.SIGINT, b"^C")


def test_what_a_job_types_reaches_its_own_terminal_only(tree: Tree) -> None:
    script = "import fcntl, termios\nfor key in b'touch typed\\n': fcntl.ioctl(1, termios.TIOCSTI, bytes([key]))"
    argv = [tree.where.termite("termite"), "python3", "-c", script]
    with on_terminal(
        tree.where, ["sh", "-c", '"$@"; echo over; read line; echo "got <$line>"', "sh", *argv], tree.path, env=NEVER
    ) as terminal:
        terminal.read_until(b"over\r\n")
        terminal.type(b"mine\n")
        text = terminal.finish()[1]
    assert b"got <mine>" in text, text


def test_a_make_on_a_terminal_gives_each_command_one(tree: Tree) -> None:
    rules = "".join(f"{n}:\n\t@test -t 1 && printf '%s %s\\n' {n} \"$$(stty size <&2)\"\n" for n in range(6))
    tree.write("Makefile", f"all: 0 1 2 3 4 5\n{rules}")
    code, text = shown(tree.where, [tree.where.termite("termite-make"), "-j3"], tree.path, env=NEVER)
    assert code == 0
    assert sorted(line for line in text.split(b"\r\n") if b"33 77" in line) == [b"%d 33 77" % n for n in range(6)]


def test_a_terminal_needs_no_more_requests_than_a_pipe(tree: Tree) -> None:
    def requests() -> int:
        return sum(tree.status()["messages"].values())

    termite = tree.where.termite("termite")
    before = requests()
    assert tree.termite("true", env=NEVER).code == 0
    with_pipe = requests() - before
    assert shown(tree.where, [termite, "true"], tree.path, env=NEVER)[0] == 0
    assert requests() - before - with_pipe == with_pipe
