"""Test that a command never runs on top of its own results, whenever its master is killed.

Here some calls of the master's disk are hit. `make torture ARGS='--sweeps */disk.'` hits each call
with each fault.
"""

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, Tree, cluster, embedded, new_tree
from tests.e2e.conftest import USERS, MakePlace, in_turn
from tests.e2e.places import COMMANDS, Outcome
from tests.e2e.waiting import wait_until
from tests.torture import faulty_calls
from tests.torture.sweep_jobs import JOBS
from tests.torture.sweep_rig import replace_file

JOB = JOBS["fail"]  # every part of it does something else when it is run a second time
SERIAL = "1"
DISK = "disk."
ALL = "disk.,launchers.write"  # only for a kill: a launcher that cannot be written to is one that has gone


class FaultyMasters:
    """Masters of one tree, one after another, whose system calls a test may let fail."""

    def __init__(self, whole: Cluster, tree: Tree) -> None:
        self._whole = whole
        self.tree = tree
        self.control = tree.where.base / f"control-{tree.path.name}"
        self.control.mkdir()
        tree.own(self.control)
        self._log = tree.where.base / f"{tree.path.name}.log"
        self._serial = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def daemons(self) -> list[int]:
        """The pids of the coordinator and the worker."""
        return [daemon.process.pid for daemon in (self._whole.coordinator, *self._whole.workers)]

    def twin(self) -> "FaultyMasters":
        """Return the masters of another tree, which has the same coordinator and worker."""
        return FaultyMasters(self._whole, new_tree(self.tree.where, f"{self.tree.path.name}-twin"))

    def start(self) -> None:
        """Start a master that obeys `order`, and let it get a lease."""
        flags = ("-secret", str(self._whole.secret), "-coordinator", self._whole.address, "-short", "0")
        self.stop()
        argv = [str(COMMANDS / "python"), faulty_calls.__file__, str(self.control), "master", *flags]
        self.no_order()
        with self._log.open("wb") as output:
            running = self.process = self.tree.where.start(
                argv, self.tree.path, stdout=output.fileno(), stderr=output.fileno()
            )
        wait_until(lambda: "serves" in self.text() or running.poll() is not None, "the master", self.text)
        assert self.tree.termite("sh", "-c", "ls -R; exit 5").code == 5, self.text()

    def text(self) -> str:
        return self._log.read_text(errors="replace")

    def order(self, number: int, what: str, often: int = 1, calls: str = DISK) -> None:
        """Let the calls from the `number`-th one on fail, or end the master there."""
        self._serial += 1
        replace_file(self.control / "master", f"{self._serial} {calls} {number} {what} {often}")

    def no_order(self) -> None:
        (self.control / "master").unlink(missing_ok=True)

    @property
    def is_reached(self) -> bool:
        return (self.control / f"reached-{self._serial}").exists()

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


def fill(tree: Tree) -> None:
    JOB.fill(tree, SERIAL)


def trouble(tree: Path) -> list[str]:
    """Return what is not as one run of the job leaves it."""
    return list(JOB.trouble(tree, SERIAL))


def run(tree: Tree) -> Outcome:
    return tree.termite("sh", "-c", JOB.script)


def sweep(masters: FaultyMasters, what: str, step: int, check: Callable[[int, Outcome], None], number: int = 1) -> int:
    """Run the job with a fault at each `step`-th call until none is reached. Return its number.

    `number` is that of the first call.
    """
    while True:
        fill(masters.tree)
        if masters.process is None or masters.process.poll() is not None:
            masters.start()
        masters.order(number, what, calls=ALL if what == "kill" else DISK)
        done = run(masters.tree)
        was_reached = masters.is_reached
        masters.no_order()
        check(number, done)
        if not was_reached:
            break
        if what == "kill":
            masters.stop()
        number += step
    masters.stop()
    assert not (masters.tree.path / ".termite-staging").exists(), masters.text()
    return number


@pytest.mark.timeout(600)  # it starts a master for each call, and the machine may be busy
def test_the_master_is_killed_at_any_of_its_calls(masters: FaultyMasters) -> None:
    """Two trees have masters at the same time, and each of them half of the calls."""
    finished = []
    step = 16 if masters.tree.where.uid == 0 else 4

    def kill_at(some: FaultyMasters, first: int) -> int:
        def check(number: int, done: Outcome) -> None:
            assert (done.code, trouble(some.tree.path)) == (7, []), (number, done, some.text())
            if b"1 command runs on this machine" not in done.stderr:
                finished.append(number)

        return sweep(some, "kill", 2 * step, check, first)

    with ExitStack() as stack:
        twin = masters.twin()
        stack.callback(twin.stop, signal.SIGKILL)
        pool = stack.enter_context(ThreadPoolExecutor(2))
        numbers = list(pool.map(kill_at, (masters, twin), (1, 1 + step)))
    assert min(numbers) > 30 and len(finished) > (1 if step == 16 else 4), (numbers, finished)


@in_turn("masters", "name", "ENOSPC", "EIO", "EMFILE", "EDQUOT")
def test_a_call_that_fails_once_is_repeated_or_the_job_leaves_no_trace(masters: FaultyMasters, name: str) -> None:
    def check(number: int, done: Outcome) -> None:
        assert (done.code, trouble(masters.tree.path)) == (7, []), (number, done, masters.text())

    assert sweep(masters, name, 2 if name == "ENOSPC" else 6, check) > 30


def test_calls_that_go_on_failing_end_the_job_with_101_and_the_names(masters: FaultyMasters) -> None:
    tree = masters.tree
    fill(tree)
    masters.start()
    for number in (1, *range(21, 60, 3)):
        fill(tree)
        masters.order(number, "EROFS", 10**6)
        done = run(tree)
        masters.no_order()
        if done.code == 101:
            break
        assert (done.code, trouble(tree.path)) == (7, []), "before the plan it runs here"
    assert done.code == 101 and number > 1, (number, done)
    assert b"termite: the results were not all written to the tree (Read-only file system)" in done.stderr
    assert b"termite: not written: " in done.stderr, done
    assert (tree.path / "counter").read_text() in ("1\n", "2\n")


@in_turn("masters", "delay_s", 0.0, 0.01, 0.02, 0.04, 0.08)
def test_the_master_is_killed_while_it_publishes_500_files(masters: FaultyMasters, delay_s: float) -> None:
    tree = masters.tree
    for number in range(500):
        tree.write(f"d1/f{number}", str(number))
    masters.start()
    process = tree.where.start([tree.where.termite("termite"), "sh", "-c", "echo x >>log; mv d1 d2"], tree.path)
    wait_until((tree.path / "d2").exists, "the first change", masters.text)
    time.sleep(delay_s)
    masters.stop(signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, b""), err
    assert not (tree.path / "d1").exists()
    assert len(list((tree.path / "d2").glob("f*"))) == 500 and len(list((tree.path / "d2").iterdir())) == 500
    assert (tree.path / "log").read_text() == "x\n"


# The master is killed at a call in the middle of the steps. The job's staging has fewer calls
# than that.
AMID = 45


def kill_master_and_launcher(masters: FaultyMasters) -> None:
    """Leave a plan half done, as a CI runner does that kills the whole process group."""
    fill(masters.tree)
    masters.start()
    masters.order(AMID, "stop")
    argv = [masters.tree.where.termite("termite"), "sh", "-c", JOB.script]
    process = masters.tree.where.start(argv, masters.tree.path)
    wait_until(lambda: masters.is_reached, "the call", masters.text)
    process.kill()
    process.communicate()
    masters.stop(signal.SIGKILL)
    assert trouble(masters.tree.path), "it was killed in the middle"


def test_the_next_master_finishes_what_is_half_done(masters: FaultyMasters) -> None:
    kill_master_and_launcher(masters)
    masters.start()
    assert trouble(masters.tree.path) == []
    assert "plan-finished" in masters.text()
    masters.stop()
    assert not (masters.tree.path / ".termite-staging").exists()


GROUPS = next(
    (
        top
        for top in map(Path, ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"))
        if (top / "cgroup.subtree_control").exists()
    ),
    Path("/sys/fs/cgroup"),
)
ONE_RUN = JOBS["append"]  # it does the same, and ends with 0


@contextmanager
def group_of_a_ci_runner() -> Iterator[Path]:
    """Make a control group, whose processes the kernel kills all at once."""
    group = GROUPS / f"termite-test-{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        (group / "cgroup.kill").write_text("1")
        wait_until(lambda: _is_removed(group), "the group is empty")


def _is_removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError as error:
        assert error.errno == errno.EBUSY, error  # its last processes are about to end
        return False
    return True


def take_in(group: Path, *pids: int) -> None:
    """Move processes and everything below them to the group."""
    for pid in pids:
        (group / "cgroup.procs").write_text(str(pid))
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            take_in(group, *map(int, task.read_text().split()))


@pytest.mark.skipif(not os.access(GROUPS / "cgroup.procs", os.W_OK), reason="no control groups (v2) to write to")
def test_a_ci_runner_kills_everything_at_once_while_results_are_written(masters: FaultyMasters) -> None:
    """Let the coordinator, the worker with its mirror, the master and make die together."""
    tree = masters.tree
    ONE_RUN.fill(tree, SERIAL)
    tree.write("job.sh", f"{ONE_RUN.script}; touch made")
    tree.write("Makefile", "made:\n\t@sh ./job.sh\n")
    masters.start()
    masters.order(AMID, "stop")
    make = tree.where.start([tree.where.termite("termite-make")], tree.path)
    with group_of_a_ci_runner() as group:
        wait_until(lambda: masters.is_reached, "the call", masters.text)
        assert masters.process is not None
        take_in(group, make.pid, masters.process.pid, *masters.daemons)
    make.communicate(timeout=20)
    assert list(ONE_RUN.trouble(tree.path, SERIAL)), "they were killed in the middle"
    # A launcher that nobody has reaped yet counts as alive: the second master removes the plan.
    for _ in range(2):
        with embedded(tree):
            done = tree.make()
            assert (done.code, list(ONE_RUN.trouble(tree.path, SERIAL))) == (0, []), done
    wait_until(lambda: not (tree.path / ".termite-staging").exists(), "the embedded master has ended")


def test_the_next_master_discards_a_plan_if_a_file_of_it_has_changed(masters: FaultyMasters) -> None:
    kill_master_and_launcher(masters)
    left = [name for name in ("old", "text", "counter", "mode") if name in trouble(masters.tree.path)]
    assert left, "there is something to change"
    path = masters.tree.path / left[0]
    path.write_text("of the user")
    masters.start()
    assert path.read_text() == "of the user"
    assert "plan-discarded" in masters.text() and f"{left[0]} has changed since" in masters.text()
    masters.stop()
    assert not (masters.tree.path / ".termite-staging").exists()


def test_a_job_that_is_cancelled_too_late_has_happened_and_the_next_command_sees_all(
    masters: FaultyMasters,
) -> None:
    tree = masters.tree
    fill(tree)
    masters.start()
    masters.order(AMID, "ENOSPC", 20)  # the step is repeated for two seconds
    process = tree.where.start([tree.where.termite("termite"), "sh", "-c", JOB.script], tree.path)
    wait_until(lambda: masters.is_reached, "the call", masters.text)
    began_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == -signal.SIGINT
    assert time.monotonic() - began_s < 3
    assert tree.termite("sh", "-c", "cat log counter").stdout == b"x\n2\n"
    assert trouble(tree.path) == []
