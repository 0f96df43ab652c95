"""No job takes the end or standstill of the process that answers its calls for its own error.

The jobs end with success whatever their calls say, as scripts do that try something else.
"""

import contextlib
import os
import resource
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio

from termite.engine.errors import Reason, Retryable
from termite.fuse.sandbox.running_sandbox import OnOutput
from termite.fuse.sandbox.sandbox_report import SandboxResult
from tests.e2e.bench import Bench, is_mirror
from tests.e2e.cluster import processes_running

NOBODY = 54321  # an id that is not the job's
# Each repeats its call until the test has written to the file, and makes it once more then.
REPEATED = """
echo a >a; echo ready
while read -r said <gate; {call} || echo refused; [ "$said" = wait ]; do :; done
"""
LINKING, GIVING = REPEATED.format(call="ln -f a b"), REPEATED.format(call=f"chown {NOBODY} a")
LIMIT_S = 20.0


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Yield a bench whose sandboxes are watched, as the mirror does."""
    bench = Bench(tmp_path, tmpfs=False, own=(1000, 1000))
    bench.sandboxes.setup()
    (bench.project / "gate").write_text("wait\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.sandboxes.keep_watching)
        yield bench
        nursery.cancel_scope.cancel()
    bench.sandboxes.close()


def watcher_of(bench: Bench) -> int:
    """Return the pid of `termite-sandbox serve`."""
    pids = processes_running(b"termite-sandbox\0serve\0--own=1000:1000\0")
    found = [pid for pid in pids if os.fsencode(bench.scratch) in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return next(pid for pid in found if parent_of(pid) not in found)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def run_until_ready(
    bench: Bench, script: str, then: Callable[[int], Awaitable[None]]
) -> tuple[SandboxResult, bytes]:
    """Run a job, and call `then` with the watcher's pid when the job says that it is ready.

    Then let the job make its last call.
    """
    output: list[bytes] = []

    async def do_and_go_on() -> None:
        await then(watcher_of(bench))
        (bench.project / "gate").write_text("go on\n")

    async with trio.open_nursery() as nursery:

        async def on_output(chunk: bytes) -> None:
            output.append(chunk[1:])
            if chunk.startswith(b"1ready\n"):
                nursery.start_soon(do_and_go_on)

        forward: OnOutput = on_output
        with trio.fail_after(LIMIT_S):
            result = await bench.sandboxes.run(bench.spec(b"sh", b"-c", script.encode()), forward)
        nursery.cancel_scope.cancel()
    return result, b"".join(output)


async def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


async def stop_and_kill(pid: int) -> None:
    """Let the job wait for an answer before the watcher dies."""
    os.kill(pid, signal.SIGSTOP)
    await trio.sleep(0.3)
    os.kill(pid, signal.SIGKILL)


async def stop_until_resumed(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    while state_of(pid) == "T":  # noqa: ASYNC110  (a process has no event)
        await trio.sleep(0.01)


async def stop_again_and_again(pid: int) -> None:
    with contextlib.suppress(OSError):
        while state_of(pid) not in "ZX":
            os.kill(pid, signal.SIGSTOP)
            await trio.sleep(0.001)


async def take_its_descriptors(pid: int) -> None:
    """Let the watcher open no file any more. It has a few open."""
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, 3))


@is_mirror
@pytest.mark.logs("spawner-died", "spawner-failed", "spawner-stands-still")
@pytest.mark.parametrize("fault", [kill, stop_and_kill, take_its_descriptors])
@pytest.mark.parametrize("script", [LINKING, GIVING], ids=["ln", "chown"])
async def test_a_job_whose_watcher_has_gone_is_given_back_whatever_it_ends_with(
    bench: Bench, script: str, fault: Callable[[int], Awaitable[None]]
) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        print(await run_until_ready(bench, script, fault))
    assert caught.group_contains(Retryable, match="died before its command ended")
    with trio.fail_after(LIMIT_S):
        assert (await bench.sh("ln -s a b && echo goes on")).stdout == b"goes on\n"


@is_mirror
@pytest.mark.logs("spawner-stands-still")
async def test_a_watcher_that_somebody_stops_is_resumed_and_its_job_goes_on(bench: Bench) -> None:
    before = trio.current_time()
    _, output = await run_until_ready(bench, LINKING, stop_until_resumed)
    assert output == b"ready\n"
    assert trio.current_time() - before < LIMIT_S / 2


@is_mirror
@pytest.mark.logs("spawner-stands-still", "spawner-stuck", "sandbox-stands-still", "sandbox-killed")
async def test_a_watcher_that_cannot_be_resumed_is_killed_and_its_job_given_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("termite.fuse.sandbox.standstill.PATIENCE_S", 1.0)
    with pytest.raises(ExceptionGroup) as caught:
        print(await run_until_ready(bench, "echo a >a; echo ready; while :; do ln -f a b; done", stop_again_and_again))
    errors = caught.value.exceptions
    assert all(isinstance(error, Retryable) for error in errors)
    assert {getattr(error, "reason", None) for error in errors} <= {Reason.SANDBOX_FAILED, Reason.SANDBOX_STUCK}
