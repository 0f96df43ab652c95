"""A kernel without memory does not take an answer of a mirror, and no job waits for it for ever."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, ancestors, cluster, new_tree, processes_running
from tests.e2e.conftest import MakePlace, needs_root
from tests.e2e.waiting import wait_until

ANSWERS = 40  # that the kernel takes before the one that it does not take
LATE_S = 30.0


def mirror_of(whole: Cluster) -> int:
    """Return the process that answers the kernel, which has no child that is a mirror."""
    worker = whole.workers[0].process.pid
    return max(
        (pid for pid in processes_running(b"termite.fuse.mirror") if worker in ancestors(pid)),
        key=lambda pid: len(ancestors(pid)),
    )


@needs_root
@pytest.mark.parametrize("kind", ["root", "ordinary"])
def test_a_mirror_whose_answer_is_not_taken_ends_and_its_jobs_run_elsewhere(
    make_place: MakePlace, kind: str, tmp_path: Path
) -> None:
    with make_place(kind) as where, cluster(new_tree(where), [where]) as whole:
        for number in range(200):
            whole.tree.write(f"in/{number}", str(number))
        script = "while [ ! -e go ]; do sleep 0.1; done; echo once >>log; cat in/*"
        job = where.start([where.termite("termite"), "sh", "-c", script], whole.tree.path)
        try:
            wait_until(lambda: whole.tree.status()["slots"]["busy"] == 1, "the job runs", whole.master.text)
            with traced(mirror_of(whole), tmp_path / "trace"):
                whole.tree.write("go", "")
                stdout, stderr = job.communicate(timeout=LATE_S)
        finally:
            job.kill()
            job.communicate()
        assert (job.returncode, len(stdout)) == (0, 490), stderr
        assert (whole.tree.path / "log").read_text() == "once\n"
        assert "INJECTED" in (tmp_path / "trace").read_text()
        wait_until(lambda: "mirror-died" in whole.workers[0].text(), "the worker says so", whole.workers[0].text)
        assert "answer-not-taken reason=" in whole.workers[0].text()
        assert "Cannot allocate memory" in whole.workers[0].text()
        wait_until(lambda: whole.tree.termite("true").code == 0, "the worker serves again")


@contextmanager
def traced(pid: int, trace: Path) -> Iterator[None]:
    """Let the kernel refuse one answer of a process in this block."""
    inject = f"inject=writev:error=ENOMEM:when={ANSWERS}"
    words = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=writev", "-e", inject]
    tracer = subprocess.Popen([*words, "-p", str(pid)])
    try:
        wait_until(lambda: "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text(), "it is traced")
        yield
    finally:
        tracer.kill()
        tracer.wait()
