"""Test that the launcher asks the plan when its master has gone, with the real termite-redo."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from termite.engine.tree.logic.redo_plan import JobEnd, Outcome, PlaceEntry, Step
from termite.engine.tree.publishing.kept_plans.plan_file import PlanFile
from tests.e2e.waiting import wait_until
from tests.native.fake_master import Conversation, FakeMaster, finish, frame, started

COMMAND = ["sh", "-c", "echo again >>ran"]


def child_words(pid: int) -> bytes:
    """Return the command lines of the children of a process, or b"" if one has just ended."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return b"".join(Path(f"/proc/{child}/cmdline").read_bytes() for child in children)
    except OSError:
        return b""


class Plans:
    """The staging directory and the plan of a master that is being played."""

    def __init__(self, tree: Path) -> None:
        self.path = tree / ".termite-staging"
        self.path.mkdir(mode=0o700)
        self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        self.file = PlanFile(self._fd)

    def begin(self, talk: Conversation, *steps: Step, code: int = 0, number: int = 0, stdin: bytes = b"") -> JobEnd:
        token = bytes.fromhex(talk.invocation["token"].decode())
        end = JobEnd(token, int(talk.invocation["pid"]), code, number, stdin)
        self.file.begin(end, lambda: False, steps)
        return end

    def staged(self, content: str) -> bytes:
        name = os.fsdecode(self.file.label) + ".1"
        (self.path / name).write_text(content)
        return os.fsencode(name)

    def die(self) -> None:
        os.close(self.file._fd)


@pytest.fixture
def plans(tree: Path) -> Plans:
    return Plans(tree)


def test_a_plan_that_is_not_finished_is_finished(launcher: Path, tree: Path, master: FakeMaster, plans: Plans) -> None:
    with started([launcher, *COMMAND], tree) as process:
        talk = master.accept()
        plans.begin(talk, PlaceEntry(b"out", plans.staged("result"), None), code=4)
        plans.die()
        talk.vanish()
        assert finish(process) == (4, b"", b"")
    assert (tree / "out").read_text() == "result"
    assert not (tree / "ran").exists()
    assert not plans.path.exists(), "nothing is left if nobody else may ask"


@pytest.mark.parametrize("output", [b"", b"some"])
def test_a_plan_that_is_finished_gives_the_exit(
    launcher: Path, tree: Path, master: FakeMaster, plans: Plans, output: bytes
) -> None:
    with started([launcher, *COMMAND], tree) as process:
        talk = master.accept()
        if output:
            talk.say(frame("1", output))
        plans.file.end(Outcome.DONE, plans.begin(talk, number=signal.SIGUSR1))
        plans.die()
        talk.vanish()
        assert finish(process) == (-signal.SIGUSR1, output, b"")
    assert not (tree / "ran").exists()


def test_where_the_job_left_its_stdin_is_known(launcher: Path, tree: Path, master: FakeMaster, plans: Plans) -> None:
    (tree / "input").write_bytes(b"0123456789")
    stdin = os.open(tree / "input", os.O_RDONLY)
    with started([launcher, *COMMAND], tree, stdin=stdin) as process:
        talk = master.accept()
        plans.begin(talk, stdin=b"stdin_offset=4\0")
        plans.die()
        talk.vanish()
        assert finish(process)[0] == 0
    assert os.lseek(stdin, 0, os.SEEK_CUR) == 4
    os.close(stdin)


def test_a_plan_of_another_job_means_that_this_one_has_not_happened(
    launcher: Path, tree: Path, master: FakeMaster, plans: Plans
) -> None:
    with started([launcher, *COMMAND], tree) as other, started([launcher, *COMMAND], tree) as process:
        plans.begin(master.accept())
        plans.die()
        master.accept().vanish()
        wait_until(lambda: {other.poll(), process.poll()} != {None}, "a launcher has ended")
        assert {other.poll(), process.poll()} - {None} == {0}
    assert (tree / "ran").read_text() == "again\n"


def test_a_plan_that_cannot_be_finished_ends_with_101_and_the_names(
    launcher: Path, tree: Path, master: FakeMaster, plans: Plans
) -> None:
    (tree / "d").write_text("no directory")
    with started([launcher, *COMMAND], tree) as process:
        talk = master.accept()
        plans.begin(talk, PlaceEntry(b"d/out", plans.staged("result"), None))
        plans.die()
        talk.vanish()
        status, out, err = finish(process)
    assert (status, out) == (101, b"")
    assert b"termite: the results were not all written to the tree (Not a directory)" in err
    assert b"termite: not written: d/out\n" in err
    assert not (tree / "ran").exists()


def test_a_plan_that_another_process_finishes_is_waited_for(
    launcher: Path, tree: Path, master: FakeMaster, plans: Plans
) -> None:
    with started([launcher, *COMMAND], tree) as process:
        talk = master.accept()
        end = plans.begin(talk, PlaceEntry(b"out", plans.staged("result"), None), code=6)
        talk.vanish()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        plans.file.end(Outcome.DONE, end)
        assert finish(process)[0] == 6
    assert not (tree / "out").exists(), "who holds the lock has done that"
    assert plans.path.exists(), "the master lives"
    plans.die()


def test_a_signal_ends_it_while_it_waits(launcher: Path, tree: Path, master: FakeMaster, plans: Plans) -> None:
    with started([launcher, *COMMAND], tree) as process:
        talk = master.accept()
        plans.begin(talk)
        talk.vanish()
        wait_until(lambda: b"termite-redo" in child_words(process.pid), "termite-redo")
        process.send_signal(signal.SIGINT)
        assert process.wait(4) == -signal.SIGINT
        plans.die()
    assert not (tree / "ran").exists()


def test_without_the_program_that_finishes_plans_nothing_runs_twice(
    launcher: Path, tree: Path, master: FakeMaster, plans: Plans, tmp_path: Path
) -> None:
    alone = tmp_path / "alone" / "termite"
    alone.parent.mkdir()
    alone.write_bytes(launcher.read_bytes())
    alone.chmod(0o755)
    with started([alone, *COMMAND], tree) as process:
        talk = master.accept()
        plans.begin(talk)
        plans.die()
        talk.vanish()
        status, out, err = finish(process)
    assert (status, out) == (101, b"")
    assert b"termite: the master went away while it wrote the results of: sh\n" in err
    assert not (tree / "ran").exists()


@pytest.mark.parametrize(("code", "stdin"), [(300, b""), (0, b"stdin_offset=x\0"), (0, b"no field")])
def test_a_finished_plan_whose_exit_is_wrong_runs_nothing_twice(
    launcher: Path, tree: Path, master: FakeMaster, plans: Plans, code: int, stdin: bytes
) -> None:
    with started([launcher, *COMMAND], tree) as process:
        talk = master.accept()
        plans.file.end(Outcome.DONE, plans.begin(talk, code=code, stdin=stdin))
        plans.die()
        talk.vanish()
        assert finish(process)[0] in (101, 102)
    assert not (tree / "ran").exists()


@pytest.mark.parametrize("named", ["link", "links/relative", "tree/.termite-socket"])
def test_the_plan_lies_where_the_socket_is_and_not_where_its_name_stands(
    launcher: Path, tree: Path, master: FakeMaster, plans: Plans, tmp_path: Path, named: str
) -> None:
    (tmp_path / "link").symlink_to(tree / ".termite-socket")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/relative").symlink_to("../link")
    env = {"PATH": "/usr/bin:/bin", "TERMITE_SOCKET": named}
    with started([launcher, *COMMAND], tmp_path, env=env) as process:
        talk = master.accept()
        plans.begin(talk, PlaceEntry(b"out", plans.staged("result"), None), code=4)
        plans.die()
        master.path.unlink()
        talk.vanish()
        assert finish(process) == (4, b"", b"")
    assert (tree / "out").read_text() == "result"


@pytest.mark.parametrize(
    "said", [frame("E", b"signal=100\0"), frame("E", b"x" * 70_000), frame("Z")], ids=["no signal", "long", "no frame"]
)
def test_a_wrong_frame_of_a_living_master_runs_nothing_twice(
    launcher: Path, tree: Path, master: FakeMaster, plans: Plans, said: bytes
) -> None:
    with started([launcher, *COMMAND], tree) as process:
        talk = master.accept()
        plans.file.end(Outcome.DONE, plans.begin(talk, code=5))
        talk.say(said)
        assert finish(process) == (5, b"", b"")
    plans.die()


def test_a_job_whose_exit_is_wrong_has_happened_without_a_plan(launcher: Path, tree: Path, master: FakeMaster) -> None:
    for said in (frame("E", b"signal=100\0"), frame("E", b"x" * 70_000)):
        with started([launcher, *COMMAND], tree) as process:
            master.accept().say(said)
            status, out, err = finish(process)
        assert (status, out) == (102, b"") and b"another protocol while the command was running: sh" in err
    assert not (tree / "ran").exists()
