"""A shell on a worker has the files, the directory and the environment of a job, and a terminal."""

import re
import shutil
import signal
import tempfile
import time
from pathlib import Path

import msgspec
import pytest

from termite.cli.places import tree_name
from tests.e2e.cluster import Tree, cluster, new_tree
from tests.e2e.conftest import MakePlace
from tests.e2e.places import Outcome
from tests.e2e.terminals import on_terminal
from tests.synthetic_builds import SyntheticBuild, synthetic_build, write_history

NEVER = {"TERMITE_LOCAL": "never"}
ENDING_S = 20
PROMPT = "job> "


def last_number(tree: Tree) -> int:
    """Return the number of the newest job: the master names it to who asks for a later one."""
    refusal = shell(tree, "999999", "--", "true")
    found = re.search(rb"remembers jobs \d+ to (\d+)", refusal.stderr)
    assert refusal.code == 100 and found, refusal
    return int(found[1])


def shell(tree: Tree, *words: str, **env: str) -> Outcome:
    return tree.ctl("shell", *words, env=env)


def test_a_command_sees_what_a_job_saw_and_what_it_writes_is_dropped(tree: Tree) -> None:
    tree.write("sub/here", "file\n")
    below = Tree(tree.where, tree.path / "sub")
    assert below.termite("sh", "-c", "ulimit -n 512; :", env=NEVER | {"MARK": "secret of the job"}).code == 0
    job = last_number(tree)
    tree.write("sub/later", "now\n")
    script = 'pwd; echo "$MARK $OURS"; cat here later; umask; test -t 0 || echo none; echo new >made; exit 7'
    seen = shell(tree, str(job), "--", "sh", "-c", script, OURS="ours")
    assert (seen.code, seen.stdout.decode().splitlines()) == (
        7,
        [str(tree.path / "sub"), "secret of the job ", "file", "now", "0022", "none"],
    )
    place = f"in {tree.path}/sub, with the environment of job {job}; nothing it writes comes home"
    assert place in seen.stderr.decode() and b"stayed on the worker: 2 (-keep brings them home)" in seen.stderr
    assert not (tree.path / "sub/made").exists()

    kept = shell(tree, "--keep", str(job), "--", "sh", "-c", "echo new >made; mkdir d; echo x >d/f")
    assert (kept.code, kept.stdout) == (0, b"") and b"comes home at its end" in kept.stderr
    assert (tree.path / "sub/made").read_text() == "new\n" and (tree.path / "sub/d/f").read_text() == "x\n"

    own = shell(tree, "--", "sh", "-c", 'pwd; echo "$MARK $OURS"; kill -TERM $$', OURS="ours")
    assert (own.code, own.stdout.decode().splitlines()) == (128 + signal.SIGTERM, [str(tree.path), " ours"])
    assert b"with the environment of this terminal" in own.stderr
    assert b"secret of the job" not in own.stderr + seen.stderr + kept.stderr
    written = [path.read_bytes() for path in (tree.where.base / "home/.local/state").rglob("*") if path.is_file()]
    assert written and not any(b"secret of the job" in content for content in written)


def write_record(tree: Tree, number: int, cwd: str) -> None:
    """Record a job of this number, as a master that has ended does."""
    top = Path(tree.status()["root"])
    state = tree.where.base / "home/.local/state/termite"
    build, (job, *_) = synthetic_build(jobs=1, number=number, first_job=number)
    with tempfile.TemporaryDirectory() as made:  # the master that runs holds the lock of the real place
        write_history(Path(made), [SyntheticBuild(build, [msgspec.structs.replace(job, cwd=cwd)])])
        for part in Path(made).glob("*-*"):
            shutil.copy(part, state / "records" / tree_name(top))
    for path in (state / "records").rglob("*"):
        tree.own(path)
    tree.own(state / "records")


def test_of_a_job_that_only_a_record_knows_the_directory_is_left(tree: Tree) -> None:
    below = tree.mkdir("sub")
    write_record(tree, 800_000, str(below))
    seen = shell(tree, "800000", "--", "sh", "-c", "pwd; echo $OURS", OURS="ours")
    assert (seen.code, seen.stdout.decode().splitlines()) == (0, [str(below), "ours"]), seen
    assert b"with the environment of this terminal, because this master does not remember job 800000" in seen.stderr
    below.rmdir()
    gone = shell(tree, "800000", "--", "true")
    assert gone.code == 100 and f"the directory of job 800000 is gone: {below}" in gone.stderr.decode()


def test_a_shell_at_a_terminal_is_as_one_here(tree: Tree) -> None:
    assert tree.termite("date", env=NEVER | {"TERM": "dumb", "MARK": "of the job", "PS1": PROMPT}).code == 0
    job = last_number(tree)
    words = [tree.where.termite("termite-ctl"), "shell", str(job), "--", "bash", "--norc", "--noediting"]
    with on_terminal(tree.where, words, tree.path, env={"PS1": "ours> "}) as terminal:
        assert b"the environment of job" in terminal.read_until(b"\r\n")
        terminal.read_until(PROMPT.encode())
        answers = {
            b"echo $TERM $MARK": b"xterm of the job\r\n",
            b"tty; stty size": b"/dev/pts/0\r\n33 77\r\n",
            b"echo wrong\x7f\x7f\x7f\x7f\x7fright": b"right\r\n",
            b"read line; echo got $line\rtyped": b"got typed\r\n",
            b"echo made >made; cat made": b"made\r\n",
        }
        for typed, answer in answers.items():
            terminal.type(typed + b"\r")
            assert terminal.read_until(PROMPT.encode()).endswith(answer), typed
        terminal.type(b"sh -c 'echo on; exec sleep 100'\r")
        terminal.read_until(b"on\r\n")
        terminal.type(b"\x03")
        assert b"^C" in terminal.read_until(PROMPT.encode())
        terminal.type(b"sh -c 'echo on; exec sleep 100'\r")
        terminal.read_until(b"on\r\n")
        terminal.type(b"\x1a")
        assert b"Stopped" in terminal.read_until(PROMPT.encode())
        terminal.type(b"kill %1; wait; echo gone\r")
        terminal.read_until(b"gone\r\n")
        terminal.resize(11, 222)
        terminal.type(b"stty size\r")
        terminal.read_until(b"11 222\r\n")
        terminal.type(b"sleep 100 &\r")  # no reason to refuse the shell's end: it is killed
        terminal.read_until(PROMPT.encode())
        terminal.type(b"exit 3\r")
        code, text = terminal.finish()
    assert code == 3 and b"exit" in text
    assert not (tree.path / "made").exists()
    assert tree.status()["slots"]["busy"] == 0


def test_keys_and_sizes_that_come_early_are_not_lost(tree: Tree) -> None:
    words = [tree.where.termite("termite-ctl"), "shell", "--", "sh", "-c", "read line; echo got $line; stty size"]
    for _ in range(5):
        with on_terminal(tree.where, words, tree.path) as terminal:
            terminal.read_until(b"comes home\r\n")
            terminal.resize(11, 222)
            terminal.type(b"early\r")
            code, text = terminal.finish()
        assert code == 0 and text.endswith(b"got early\r\n11 222\r\n"), text


def test_whoever_goes_away_ends_it_and_the_terminal_is_as_before(tree: Tree) -> None:
    ctl = tree.where.word("termite-ctl")
    script = f"stty -a >before; {ctl} shell -- sh -c 'echo ready; exec sleep 1000'; echo $? >code; stty -a >after"
    words = ["sh", "-c", f"{script}; cmp before after && echo same"]
    with on_terminal(tree.where, words, tree.path) as terminal:
        terminal.read_until(b"ready\r\n")
        terminal.type(b"\x03")
        assert terminal.finish()[1].endswith(b"same\r\n")
    assert (tree.path / "code").read_text() == "130\n"
    with on_terminal(
        tree.where, [tree.where.termite("termite-ctl"), "shell", "--", "sleep", "1000"], tree.path
    ) as terminal:
        terminal.read_until(b"comes home")
        terminal.process.terminate()
        terminal.process.wait(ENDING_S)
    limit_s = time.monotonic() + ENDING_S
    while tree.status()["slots"]["busy"]:
        assert time.monotonic() < limit_s, "the shell still has its slot"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("x",), b"usage: termite-ctl shell [-keep] [JOB] [-- COMMAND...]"),
        (("1", "2", "--", "true"), b"usage: termite-ctl shell"),
        (("--",), b"usage: termite-ctl shell"),
        ((), b"a shell needs a terminal as its standard input and output"),
        (("123456", "--", "true"), b"termite: job 123456 is not known (this master"),
        (("--", "df", "."), b"termite: the shell has ended: asks for the space of a disk"),
        (("--", "no-such-program"), b"no-such-program cannot be started on here: No such file or directory"),
        (("--keep", "--", "sh", "-c", "echo x >/usr/made"), b"nothing came home: writes outside the tree: /usr/made"),
    ],
)
def test_what_is_wrong_is_said(tree: Tree, words: tuple[str, ...], said: bytes) -> None:
    refusal = shell(tree, *words)
    assert refusal.code == 100 and said in refusal.stderr, refusal


def test_without_a_worker_and_when_it_goes_away_it_says_so(make_place: MakePlace) -> None:
    with make_place("ordinary") as where, cluster(new_tree(where), []) as whole:
        tree = whole.tree
        alone = shell(tree, "--", "true")
        assert alone.code == 100 and b"termite: no worker is available" in alone.stderr, alone
        assert b"`termite-ctl status` shows the workers" in alone.stderr
        worker = whole.add_worker(where, "late")
        whole.wait_for_workers(1)
        argv = [where.termite("termite-ctl"), "shell", "--", "sh", "-c", "echo ready; exec sleep 1000"]
        with on_terminal(where, argv, tree.path) as terminal:
            terminal.read_until(b"ready\r\n")
            worker.process.kill()
            code, text = terminal.finish()
        assert code == 100 and b"termite: the shell has ended: the connection failed" in text, text


def test_without_a_master_it_says_what_helps(tree: Tree) -> None:
    refusal = tree.ctl("shell", "--", "true", env={"TERMITE_SOCKET": "none"})
    assert refusal.code == 100 and b"termite-ctl start" in refusal.stderr


def test_it_has_the_limits_and_the_filter_of_jobs(tree: Tree) -> None:
    # With the whole path of status in its text, a rule would keep the command local.
    script = "cd /proc/self; grep -E '^(Seccomp|NoNewPrivs|CapEff)' status; ls ns | wc -l; id -u; ls /home | wc -l"
    as_job = tree.termite("sh", "-c", script, env=NEVER)
    as_shell = shell(tree, "--", "sh", "-c", script)
    assert as_job.stdout == as_shell.stdout and b"Seccomp:\t2" in as_shell.stdout
