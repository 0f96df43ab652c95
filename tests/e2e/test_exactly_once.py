"""Test that a command never runs on top of its own results, whenever its master is killed."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, Tree, cluster, new_tree
from tests.e2e.conftest import USERS, MakePlace
from tests.e2e.places import COMMANDS, Outcome
from tests.e2e.waiting import wait_until

WRAPPER = Path(__file__).with_name("faulty_master.py")
# Every part of it does something else when it is run a second time.
SCRIPT = """
echo x >>log; n=$(cat counter); echo $((n+1)) >counter; mv d1 d2; mkdir n; ln -s log n/s; ln log n/h; mkfifo n/p
rm old; ar q lib.a d2/f1 2>/dev/null; chmod 750 mode; mkdir -p closed/deep; patch -s text <change.diff
exit 7
"""
DIFF = "--- text\n+++ text\n@@ -1 +1,2 @@\n one\n+two\n"


class FaultyMasters:
    """Masters of one tree, one after another, whose system calls a test may let fail."""

    def __init__(self, whole: Cluster, tree: Tree) -> None:
        self._whole = whole
        self.tree = tree
        self.control = tree.where.base / "control"
        self.control.mkdir()
        tree.own(self.control)
        self._log = tree.where.base / "faulty.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **env: str) -> None:
        """Start a master that obeys `order`, and let it get a lease."""
        flags = ("-secret", str(self._whole.secret), "-coordinator", self._whole.address, "-short", "0")
        argv = [str(COMMANDS / "python"), str(WRAPPER), str(self.control), *flags]
        (self.control / "order").unlink(missing_ok=True)
        (self.control / "reached").unlink(missing_ok=True)
        with self._log.open("wb") as output:
            self.process = self.tree.where.start(
                argv, self.tree.path, stdout=output.fileno(), stderr=output.fileno(), env=env
            )
        wait_until(lambda: "serves" in self.text() or self.process.poll() is not None, "the master", self.text)
        assert self.tree.termite("sh", "-c", "ls -R; exit 5").code == 5, self.text()

    def text(self) -> str:
        return self._log.read_text(errors="replace")

    def order(self, words: str) -> None:
        (self.control / "order").write_text(words)

    @property
    def is_reached(self) -> bool:
        return (self.control / "reached").exists()

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
        if self.process is not None:
            self.process.wait(20)


@contextmanager
def faulty_masters(make_place: MakePlace, kind: str) -> Iterator[FaultyMasters]:
    with ExitStack() as stack:
        where = stack.enter_context(make_place(kind))
        whole = stack.enter_context(cluster(new_tree(where), [where]))
        whole.master.stop()
        masters = FaultyMasters(whole, new_tree(where, "faulty"))
        stack.callback(masters.stop, signal.SIGKILL)
        yield masters


@pytest.fixture(params=USERS)
def masters(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[FaultyMasters]:
    with faulty_masters(make_place, request.param) as running:
        yield running


@pytest.fixture
def users_masters(make_place: MakePlace) -> Iterator[FaultyMasters]:
    with faulty_masters(make_place, "ordinary") as running:
        yield running


def fill(tree: Tree) -> None:
    for path in tree.path.iterdir():
        if not path.name.startswith(".termite"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in ("d1/f1", "d1/f2", "old", "mode"):
        tree.write(name, name)
    tree.write("counter", "1\n")
    tree.write("text", "one\n")
    tree.write("change.diff", DIFF)
    tree.mkdir("closed")


def trouble(tree: Path) -> list[str]:
    """Return what is not as one run of SCRIPT leaves it."""
    checks: dict[str, Callable[[], bool]] = {
        "log": lambda: (tree / "log").read_text() == "x\n",
        "counter": lambda: (tree / "counter").read_text() == "2\n",
        "d2": lambda: sorted(os.listdir(tree / "d2")) == ["f1", "f2"],
        "d1": lambda: not (tree / "d1").exists(),
        "symlink": lambda: os.readlink(tree / "n/s") == "log",
        "link": lambda: (tree / "n/h").samefile(tree / "log"),
        "fifo": lambda: (tree / "n/p").is_fifo(),
        "old": lambda: not (tree / "old").exists(),
        "mode": lambda: (tree / "mode").stat().st_mode & 0o777 == 0o750,
        "deep": lambda: (tree / "closed/deep").is_dir(),
        "archive": lambda: (tree / "lib.a").read_bytes().count(b"f1/") == 1,
        "patch": lambda: (tree / "text").read_text() == "one\ntwo\n",
    }
    wrong = []
    for name, is_right in checks.items():
        good = False
        with suppress(OSError):
            good = is_right()
        if not good:
            wrong.append(name)
    return wrong


def run(tree: Tree) -> Outcome:
    return tree.termite("sh", "-c", SCRIPT)


def test_the_master_is_killed_at_each_of_its_calls(masters: FaultyMasters) -> None:
    number = 0
    finished_by_redo = 0
    while True:
        number += 1
        fill(masters.tree)
        masters.start(FAULTY_FRAMES="1")
        masters.order(f"{number} kill")
        done = run(masters.tree)
        assert (done.code, trouble(masters.tree.path)) == (7, []), (number, done, masters.text())
        if not masters.is_reached:
            break
        finished_by_redo += b"running this here" not in done.stderr
        masters.stop()
    masters.stop()
    assert number > 30 and finished_by_redo > 15, (number, finished_by_redo)
    assert not (masters.tree.path / ".termite-staging").exists()
