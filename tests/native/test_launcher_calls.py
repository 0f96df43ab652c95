"""A launcher one of whose system calls fails, in front of a master that is played.

The sweeps of `make torture` hit all calls. The faults that they once found, and what depends on the
moment there, are shown here.
"""

import errno
from pathlib import Path

import pytest

from termite.engine.tree.logic.redo_plan import Outcome
from tests.native.fake_master import FakeMaster, exit_code, fields, finish, frame, started
from tests.native.test_launcher_redo import Plans
from tests.torture.sweep_rig import build_launcher

COMMAND = ["echo", "run here"]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faulty") / "bin" / "termite"
    build_launcher(path)
    return path


@pytest.mark.parametrize("error", [errno.ENOMEM, errno.ECONNRESET, errno.EINTR])
def test_the_end_of_a_job_is_read_though_a_read_fails(
    faulty: Path, tree: Path, master: FakeMaster, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results are in the tree then, and the plan is gone: a second run would be wrong."""
    monkeypatch.setenv("TERMITE_SWEEP", f"read 1 {error} {tree / 'reached'}")
    with started([faulty, *COMMAND], tree) as process:
        talk = master.accept()
        talk.say(frame("1", b"of the job\n"), exit_code(4))
        talk.vanish()
        assert finish(process)[:2] == (4, b"of the job\n")
    assert (tree / "reached").exists()


def test_a_master_notices_that_an_answer_could_not_be_sent(
    faulty: Path, tree: Path, master: FakeMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "text").write_text("text")
    monkeypatch.setenv("TERMITE_SWEEP", f"send 2 {errno.ENOBUFS} {tree / 'reached'}")
    with (tree / "text").open() as stdin, started([faulty, "cat"], tree, stdin=stdin.fileno()) as process:
        talk = master.accept()
        talk.say(frame("R", fields(("size", "256"), ("offset", "0"))))
        assert talk.is_closed()
        talk.vanish()
        assert finish(process)[:2] == (0, b"text"), "a file can be read again"


@pytest.mark.parametrize("random", ["EAGAIN", "ENOSYS", "short"])
def test_a_job_has_a_name_of_its_own_without_random_bits(
    faulty: Path, tree: Path, master: FakeMaster, random: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans, tokens = Plans(tree), set[bytes]()
    what = random if random == "short" else str(getattr(errno, random))
    monkeypatch.setenv("TERMITE_SWEEP", f"getrandom 1 {what} {tree / 'reached'}")
    for _ in range(2):
        with started([faulty, *COMMAND], tree) as process:
            talk = master.accept()
            tokens.add(talk.invocation["token"])
            plans.file.end(Outcome.DONE, plans.begin(talk, code=4))
            talk.vanish()
            assert finish(process)[:2] == (4, b"")
    assert (tree / "reached").exists() and len(tokens) == 2 and {len(token) for token in tokens} == {16}
    plans.die()


def test_a_directory_that_cannot_be_read_may_have_the_plan(
    faulty: Path, tree: Path, master: FakeMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = Plans(tree)
    monkeypatch.setenv("TERMITE_SWEEP", f"readdir 1 {errno.EIO} {tree / 'reached'}")
    with started([faulty, *COMMAND], tree) as process:
        talk = master.accept()
        plans.file.end(Outcome.DONE, plans.begin(talk, code=4))
        talk.vanish()
        assert finish(process)[:2] == (4, b"")
    assert (tree / "reached").exists()
    plans.die()
