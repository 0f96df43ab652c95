"""Standard input is as in a local build: its kind, its bytes, and the rest for the next command."""

import array
import fcntl
import os
import shlex
import signal
import socket
import termios
import time

import pytest

from tests.e2e.cluster import Tree
from tests.e2e.places import COMMANDS
from tests.e2e.waiting import wait_until

CAT_BYTES = 50 * 1024 * 1024
PYTHON = "/usr/bin/python3"

# Reads its input whole, having waited for it in one of the ways there are.
SELECTS = "select.select([0], [], [])"
POLLS = "p = select.poll(); p.register(0, select.POLLIN); p.poll()"
EPOLLS = "e = select.epoll(); e.register(0, select.EPOLLIN); e.poll()"
NESTED = "i = select.epoll(); i.register(0, select.EPOLLIN); e = select.epoll(); e.register(i.fileno()); e.poll()"
NEVER_BLOCKS = "os.set_blocking(0, False)"
READER = """
import os, select, sys, time
total = b""
while True:
    WAIT
    try:
        piece = os.read(0, 65536)
    except BlockingIOError:
        time.sleep(0.001)
        continue
    if not piece:
        break
    total += piece
sys.stdout.buffer.write(total)
"""


def script_of(tree: Tree, text: str) -> str:
    """Run a shell script in which T is the launcher."""
    # By way of PATH: $T must be one word, also in a checkout with spaces in its path.
    return f"PATH=$PATH:{shlex.quote(str(COMMANDS))}; T=termite; {text}"


def both(tree: Tree, text: str, stdin: bytes | None = None) -> tuple[bytes, bytes]:
    """Return the output of the script, without termite and with it."""
    plain = tree.plain("sh", "-c", "T=; " + text, stdin=stdin)
    far = tree.plain("sh", "-c", script_of(tree, text), stdin=stdin)
    assert (plain.code, plain.stderr) == (far.code, far.stderr)
    return plain.stdout, far.stdout


# What each of these prints must not depend on where it ran. T is what stands before each command.
SCRIPTS = {
    "a pipe is a pipe": "echo x | $T stat -L -c %F /dev/stdin",
    "a file is a file": "$T stat -L -c '%F %s %a %Y %o' /dev/stdin <list",
    "a pipe at its end": "true | { sleep 0.1; $T sh -c 'stat -L -c %F /dev/stdin; cat; echo $?'; cat; }",
    "a here-document": "$T cat <<end\none\ntwo\nend",
    "closed": "$T cat <&-; $T ls /proc/self/fd <&-",
    "nothing": "$T stat -L -c %F /dev/stdin </dev/null",
    "a directory": "$T cat <.",
    "not for reading": "$T cat 0>>out",
    "a device": "$T head -c 3 </dev/zero | od -c",
    "two jobs and a pipe": "cat list | { $T sh -c 'read x; echo $x'; $T sh -c 'read x; echo $x'; cat; }",
    "two jobs and a file": "{ $T sh -c 'read x; echo $x'; $T sh -c 'read x; echo $x'; cat; } <list",
    "head and a file": "{ $T head -n1; $T head -n1; cat; } <list",
    "dd and a file": "{ for i in 1 2; do $T dd bs=1 skip=1 count=3 2>/dev/null; done; cat; } <list",
    "a file from its middle": "{ read x; $T cat; $T cat; echo end; } <list",
    "a file read back": f"{{ $T {PYTHON} -c 'import os; os.lseek(0, 2, 0); print(os.read(0, 3))'; cat; }} <list",
    "a file's end": f"$T {PYTHON} -c 'import os; print(os.lseek(0, -4, 2), os.read(0, 99), os.lseek(0, 0, 1))' <list",
    "a file mapped": f"$T {PYTHON} -c 'import mmap; print(mmap.mmap(0, 0, mmap.MAP_PRIVATE)[2:9])' <list",
    "a file opened again": "{ $T sh -c 'read x; cat /dev/stdin'; cat; } <list",
    "a file for both": "{ $T head -n1; echo new; cat; } 1<>list 0<>list; cat list",
    "a file to append to": "cp list mine; { $T cat; echo more >&0; $T cat; } 0>>mine <mine; cat mine",
    "a job that fails": "{ $T sh -c 'read x; exit 3'; echo $?; cat; } <list",
    "a job that does not read": "printf 'a\\nb\\n' | while read x; do $T echo got $x; done",
    "a job that does not read a file": "while read x; do $T echo got $x; done <list",
    "words read one by one": "seq 1 40 | $T sh -c 'while read x; do s=$((s+x)); done; echo $s'",
    "a compiler and a file": "$T gcc -Wall -x c -E -P - <x.c",
    "a compiler and a pipe": "cat x.c | $T gcc -Wall -x c -E -P -",
    "a compiler and its output": "cat x.c | $T gcc -x c -c -o x.o - && $T gcc -x c -c -o y.o - <x.c && cmp x.o y.o",
}


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_it_is_as_at_home(tree: Tree, text: str) -> None:
    tree.write("list", "one\ntwo\nthree\nfour\n")
    tree.write("x.c", "int f(int x)\n{\n\treturn x;\n}\n" + "/* filler */\n" * 10_000 + "int last;\n")
    before = tree.jobs()
    plain, far = both(tree, text)
    assert far == plain
    assert tree.jobs() > before, "it ran here"


@pytest.mark.parametrize("wait", [SELECTS, POLLS, EPOLLS, NESTED, NEVER_BLOCKS])
def test_who_waits_in_another_way_than_reading_gets_it_too(tree: Tree, wait: str) -> None:
    content = os.urandom(30_000)
    program = READER.replace("WAIT", wait)
    assert tree.termite(PYTHON, "-c", program, stdin=content).stdout == content


@pytest.mark.parametrize("wait", [SELECTS, POLLS, EPOLLS])
def test_what_was_only_shown_is_left_for_the_next_one(tree: Tree, wait: str) -> None:
    program = f"import os, select; {wait}; print(os.read(0, 4), flush=True)"
    script = script_of(tree, f"for i in 1 2; do $T {PYTHON} -c '{program}'; done; cat")
    done = tree.plain("sh", "-c", script, stdin=b"one\ntwo\nrest")
    assert done.stdout == b"b'one\\n'\nb'two\\n'\nrest"


def test_what_is_taken_of_the_shown_is_gone_for_others_at_once(tree: Tree) -> None:
    program = "import os, select, time; select.select([0], [], []); print(os.read(0, 4), flush=True); time.sleep(60)"
    reader, writer = os.pipe()
    os.write(writer, b"one\ntwo\n")
    process = tree.where.start([tree.where.termite("termite"), PYTHON, "-c", program], tree.path, stdin=reader)
    assert process.stdout is not None
    assert process.stdout.readline() == b"b'one\\n'\n"
    wait_until(lambda: unread(reader) == 4, "the first line is gone")
    process.terminate()
    process.communicate(timeout=30)
    assert os.read(reader, 100) == b"two\n"
    for fd in (reader, writer):
        os.close(fd)


def unread(fd: int) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


def test_a_make_that_does_not_read_leaves_the_list_of_its_targets(tree: Tree) -> None:
    tree.write("Makefile", "a b c:\n\t@echo made $@\n")
    make = tree.where.word("termite-make")
    done = tree.plain("sh", "-c", f"while read x; do {make} -s $x; done", stdin=b"a\nb\nc\n")
    assert done.stdout == b"made a\nmade b\nmade c\n"


def test_a_job_whose_time_is_up_while_it_waits_is_killed_as_ever(tree: Tree) -> None:
    script = "timeout -s KILL 0.5 cat; echo $?"
    process = tree.where.start([tree.where.termite("termite"), "sh", "-c", script], tree.path, stdin=-1)
    assert process.stdout is not None
    assert process.stdout.readline() == b"137\n"
    process.communicate(timeout=30)


POLL_AND_READ = """
import os, select
p = select.poll()
p.register(0, select.POLLIN)
print('polls', flush=True)
p.poll()
print(os.read(0, 9))
"""


def test_who_is_stopped_in_its_poll_still_gets_what_comes(tree: Tree) -> None:
    """The interrupted call goes on as another system call."""
    tree.write("poll.py", POLL_AND_READ)
    script = f"exec 3<&0; {PYTHON} poll.py <&3 & sleep 0.3; kill -STOP $!; sleep 0.2; kill -CONT $!; echo on; wait"
    process = tree.where.start([tree.where.termite("termite"), "sh", "-c", script], tree.path, stdin=-1)
    assert process.stdout is not None
    assert process.stdout.readline() == b"polls\n"
    assert process.stdout.readline() == b"on\n"
    time.sleep(0.1)  # the poll goes on, which nothing shows
    assert process.communicate(b"word", timeout=30)[0] == b"b'word'\n"


def test_a_program_that_hides_itself_is_shown_what_comes(tree: Tree) -> None:
    hide = "import ctypes, os; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); print(os.read(0, 4), flush=True)"
    script = script_of(tree, f"$T {PYTHON} -c '{hide}'; cat")
    assert tree.plain("sh", "-c", script, stdin=b"one\ntwo\n").stdout == b"b'one\\n'\ntwo\n"


def test_a_job_that_never_reads_takes_nothing(tree: Tree) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"all of it")
    process = tree.where.start(
        [tree.where.termite("termite"), "sh", "-c", "sleep 1; echo $((1+1))"], tree.path, stdin=reader
    )
    assert process.communicate(timeout=30)[0] == b"2\n"
    os.close(writer)
    assert os.read(reader, 100) == b"all of it"
    os.close(reader)


def test_a_socket_is_read_like_a_pipe(tree: Tree) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"onetwo")
        for expected in (b"one", b"two"):
            command = [tree.where.termite("termite"), "head", "-c3"]
            process = tree.where.start(command, tree.path, stdin=theirs.fileno())
            assert process.communicate(timeout=30)[0] == expected


def test_a_terminal_is_read_line_by_line_when_asked(tree: Tree) -> None:
    ours, theirs = os.openpty()
    script = script_of(tree, "$T sh -c 'read x; echo 1 $x'; $T sh -c 'sleep 0.2'; $T sh -c 'read x; echo 2 $x; cat'")
    process = tree.where.start(["sh", "-c", script], tree.path, stdin=theirs)
    os.close(theirs)
    assert process.stdout is not None
    os.write(ours, b"a\nb\n")
    assert process.stdout.readline() == b"1 a\n"
    assert process.stdout.readline() == b"2 b\n"
    os.write(ours, b"c\n\x04")
    assert process.communicate(timeout=30)[0] == b"c\n"
    os.close(ours)


def test_a_conversation_goes_on_over_it(tree: Tree) -> None:
    process = tree.where.start([tree.where.termite("termite"), "cat"], tree.path, stdin=-1)
    assert process.stdin is not None and process.stdout is not None
    begun = time.monotonic()
    for number in range(20):
        process.stdin.write(b"%d\n" % number)
        process.stdin.flush()
        assert process.stdout.readline() == b"%d\n" % number
    print(f"an answer takes {(time.monotonic() - begun) / 20 * 1000:.1f} ms")
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize("source", ["pipe", "file"])
def test_much_passes_through_it(tree: Tree, source: str) -> None:
    content = os.urandom(1024 * 1024) * (CAT_BYTES // 1024 // 1024)
    tree.write("much", content)
    redirection = "<much" if source == "file" else ""
    begun = time.monotonic()
    script = script_of(tree, f"{'cat much |' if source == 'pipe' else ''} $T sh -c 'cat >copy' {redirection}")
    assert tree.plain("sh", "-c", script).code == 0
    seconds = time.monotonic() - begun
    print(f"{source}: {CAT_BYTES / 1e6 / seconds:.0f} MB/s")
    assert (tree.path / "copy").read_bytes() == content


def test_a_file_that_grows_meanwhile_is_read_to_its_new_end(tree: Tree) -> None:
    path = tree.write("log", "one\n")
    with path.open("rb") as file:
        command = [
            tree.where.termite("termite"),
            "sh",
            "-c",
            "cat; echo read; sleep 4; cat",
        ]  # output is held for a second
        process = tree.where.start(command, tree.path, stdin=file.fileno())
        assert process.stdout is not None
        assert process.stdout.readline() == b"one\n"
        assert process.stdout.readline() == b"read\n"
        with path.open("ab") as more:
            more.write(b"two\n")
        assert process.communicate(timeout=30)[0] == b"two\n"
        assert file.seek(0, os.SEEK_CUR) == 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_is_killed_while_it_waits_leaves_the_rest(tree: Tree, number: int) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"a\n")
    command = [tree.where.termite("termite"), "sh", "-c", "read x; echo $x; read y"]
    process = tree.where.start(command, tree.path, stdin=reader)
    assert process.stdout is not None
    assert process.stdout.readline() == b"a\n"
    time.sleep(0.2)  # the job waits in its second read, which nothing shows
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == -number
    os.write(writer, b"b\n")
    assert os.read(reader, 100) == b"b\n"
    wait_until(lambda: not tree.jobs("running"), "the job is gone")
    for fd in (reader, writer):
        os.close(fd)
