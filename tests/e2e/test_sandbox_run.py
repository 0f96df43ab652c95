"""One job runs in a real sandbox: exit codes, signals, output and its pace, being killed."""

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from termite.engine.errors import Reason, Retryable
from termite.engine.model import Exit
from termite.fuse.sandbox.sandboxes import Sandboxes
from tests.e2e.bench import PROJECT, SCRATCHES, Bench, is_mirror
from tests.e2e.cluster import processes_running


@pytest.fixture(params=SCRATCHES)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path, tmpfs=request.param == "tmpfs")
    bench.sandboxes.setup()
    yield bench
    bench.sandboxes.close()


# rt_sigqueueinfo(1, SIGTERM, siginfo of a sender without a pid)
FORGE = b"$i = pack('i6 x104', 15, 0, -1, 0, 0, 0); exit syscall(%d, 1, 15, $i) != 0" % (
    129 if os.uname().machine == "x86_64" else 138
)


def first_processes(bench: Bench) -> list[int]:
    """Return the pids of sandboxes below the scratch directory of `bench`."""
    return [
        pid
        for pid in processes_running(b"\0" + os.fsencode(bench.scratch))
        if Path(f"/proc/{pid}/status").read_text().partition("NSpid:")[2].split("\n")[0].split()[-1] == "1"
    ]


# -- how a job ends ---------------------------------------------------------------------------------------------------


@is_mirror
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("true", Exit(0)),
        ("exit 1", Exit(1)),
        ("exit 255", Exit(255)),
        ("kill -TERM $$", Exit(0, signal.SIGTERM)),
        ("kill -KILL $$", Exit(0, signal.SIGKILL)),
        ("kill -SEGV $$", Exit(0, signal.SIGSEGV)),
        ("sh -c 'kill -9 $$'; exit $?", Exit(137)),
    ],
)
async def test_a_job_ends_as_its_command_did(bench: Bench, script: str, expected: Exit) -> None:
    assert (await bench.sh(script)).exit == expected


@is_mirror
async def test_a_missing_program_is_127_and_tells_the_errno(bench: Bench) -> None:
    for search in (True, False):
        ended = await bench.run(b"no-such-program", search=search)
        assert (ended.exit, ended.result.exec_errno) == (Exit(127), errno.ENOENT)


@is_mirror
async def test_a_program_that_may_not_be_executed_is_126(bench: Bench) -> None:
    (bench.project / "data").write_text("data")
    ended = await bench.run(b"./data", search=False)
    assert (ended.exit, ended.result.exec_errno) == (Exit(126), errno.EACCES)


@is_mirror
async def test_a_script_without_an_interpreter_line_is_run_by_a_shell_where_execvp_would_do_so(bench: Bench) -> None:
    script = bench.project / "script"
    script.write_text("echo from the shell\n")
    script.chmod(0o755)
    assert (await bench.run(b"./script", search=True)).stdout == b"from the shell\n"
    ended = await bench.run(b"./script", search=False)
    assert (ended.exit, ended.result.exec_errno) == (Exit(126), errno.ENOEXEC)


@is_mirror
async def test_the_job_sees_what_the_specification_says(bench: Bench) -> None:
    ended = await bench.sh(
        'id -u; id -g; pwd; umask; hostname; cat; echo $VARIABLE; echo "$0:$#"',
        uid=1234,
        gid=4321,
        umask=0o027,
        hostname="at-home",
        env=(b"PATH=/bin", b"VARIABLE=two\nlines \xff"),
    )
    assert ended.stdout == b"1234\n4321\n/home/u/p\n0027\nat-home\ntwo lines \xff\nsh:0\n"


@is_mirror
async def test_root_writes_its_own_read_only_file_as_at_home(bench: Bench) -> None:
    ended = await bench.sh("echo 1 > f; chmod 444 f; echo 2 > f; cat f", uid=0, gid=0)
    assert (ended.exit, ended.stdout) == (Exit(0), b"2\n")


@is_mirror
async def test_usage_and_times_are_told(bench: Bench) -> None:
    before = time.time_ns()
    result = (await bench.sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")).result
    assert before <= result.started_ns < result.ended_ns <= time.time_ns()
    assert 0 < result.usage.user_s + result.usage.system_s <= result.usage.wall_s * 1.5
    assert result.usage.peak_memory_bytes > 100_000


@is_mirror
async def test_a_sandbox_that_cannot_be_made_is_tried_elsewhere(bench: Bench) -> None:
    with pytest.raises(Retryable, match="cannot mount overlay"):
        await bench.sh("true", lower="nowhere")


@pytest.fixture
def narrow(bench: Bench) -> Iterator[Bench]:
    """Its scratch directory has room for a few files."""
    where = os.fspath(bench.scratch)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", where], check=True)
    yield bench
    bench.sandboxes.scratch.close()
    subprocess.run(["umount", "-l", where], check=True)


@is_mirror
async def test_a_job_that_fails_in_narrow_space_and_clears_up_after_itself_is_tried_elsewhere(narrow: Bench) -> None:
    with pytest.raises(Retryable, match="scratch space is full"):
        await narrow.sh("head -c 20000000 /dev/zero >out || { rm out; exit 1; }")


@is_mirror
async def test_a_job_that_does_not_say_that_its_output_is_cut_off_is_tried_elsewhere(narrow: Bench) -> None:
    with pytest.raises(Retryable, match="scratch space is full"):
        await narrow.sh("head -c 20000000 /dev/zero >out; true")


@is_mirror
async def test_a_job_that_did_something_else_when_space_ran_out_is_tried_elsewhere(narrow: Bench) -> None:
    fallback = "if head -c 20000000 /dev/zero >part; then echo fits; else echo full; fi >out"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(narrow.sandboxes.keep_watching)
        with pytest.raises(Retryable) as caught:
            await narrow.sh(f"{fallback}; sleep 0.2; rm part; exit 0")
        assert caught.value.reason is Reason.SCRATCH_FULL
        assert (await narrow.sh("exit 0")).exit == Exit(0), "the next job has met nothing"
        nursery.cancel_scope.cancel()


@is_mirror
async def test_a_job_that_fills_and_empties_the_space_between_two_looks_is_tried_elsewhere(narrow: Bench) -> None:
    """Nobody looks meanwhile: what the job has written tells it."""
    for script in (
        "if head -c 20000000 /dev/zero >part; then echo fits; else echo full; fi >out; rm part; exit 0",
        "(head -c 20000000 /dev/zero >part || echo full >out; rm part) & wait; exit 0",
    ):
        with pytest.raises(Retryable) as caught:
            await narrow.sh(script)
        assert caught.value.reason is Reason.SCRATCH_FULL
    ended = await narrow.sh("head -c 3000000 /dev/zero >part; rm part; exit 0")
    assert (ended.exit, ended.result.written_bytes >= 3_000_000) == (Exit(0), True), "there was room for that"
    assert (await narrow.sh("exit 0")).result.written_bytes == 0, "what is not much is not reported"


@is_mirror
async def test_a_sandbox_program_that_cannot_be_started_is_tried_elsewhere(bench: Bench, tmp_path: Path) -> None:
    sandboxes = Sandboxes(tmp_path / "missing", bench.scratch, tmpfs=False)

    async def on_output(chunk: bytes) -> None:
        raise AssertionError(chunk)

    with pytest.raises(Retryable, match="could not make a sandbox: No such file or directory"):
        await sandboxes.run(bench.spec(b"true"), on_output)


@is_mirror
async def test_a_sandbox_that_is_killed_is_tried_elsewhere(bench: Bench) -> None:
    with pytest.raises(Retryable, match="died before its command ended"):
        await bench.sh("sleep 1000", on_pid=lambda pid: os.kill(pid, signal.SIGKILL))


@is_mirror
async def test_a_sandbox_that_is_killed_while_it_waits_is_no_jobs_trouble(bench: Bench) -> None:
    await bench.sandboxes.wait_ready()
    waiting = first_processes(bench)
    assert len(waiting) == 1
    pidfd = os.pidfd_open(waiting[0])
    os.kill(waiting[0], signal.SIGKILL)
    await trio.lowlevel.wait_readable(pidfd)  # only then has it closed all that it had
    os.close(pidfd)
    assert (await bench.sh("true")).exit == Exit(0)


@is_mirror
async def test_a_signal_that_claims_to_come_from_outside_does_not_stop_the_job(bench: Bench) -> None:
    assert (await bench.run(b"perl", b"-e", FORGE, env=(b"PATH=/bin",))).exit == Exit(0)


@is_mirror
async def test_no_job_takes_terminals_from_later_ones(bench: Bench) -> None:
    assert (await bench.sh("chmod 0 /dev/pts/ptmx")).exit == Exit(1)
    assert (await bench.sh("exec 3<>/dev/ptmx")).exit == Exit(0)


@is_mirror
async def test_no_process_of_a_sandbox_has_a_descriptor_of_another_ones(bench: Bench) -> None:
    own: list[int] = []
    open_there: list[str] = []
    reader, writer = os.pipe()

    async def look(chunk: bytes) -> None:
        there = Path(f"/proc/{own[0]}/fd")
        open_there.extend(os.readlink(there / fd) for fd in os.listdir(there))
        os.close(writer)

    bench.sandboxes.keep_ready(4)
    await bench.sh("true")
    spec = bench.spec(b"sh", b"-c", b"echo; cat", stdin_fd=reader, network=True, on_pid=own.append)  # a second `serve`
    await bench.sandboxes.run(spec, look)
    os.close(reader)
    assert open_there
    assert "anon_inode:[pidfd]" not in open_there


@is_mirror
async def test_no_file_stays_open(bench: Bench) -> None:
    await bench.sh("true")
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        await bench.sh("exit 1", merge=True)
        with pytest.raises(Retryable):
            await bench.sh("true", lower="nowhere")
    assert os.listdir("/proc/self/fd") == before


@is_mirror
async def test_what_is_prepared_is_used_up_and_made_again(bench: Bench) -> None:
    bench.sandboxes.keep_ready(4)
    open_then = []
    for _ in range(20):
        assert (await bench.sh("echo x; exit 3")).exit == Exit(3)
        bench.sandboxes.prepare()
        open_then.append(len(os.listdir("/proc/self/fd")))
    ahead = 4 * (2 + 5)  # sandboxes with two descriptors, kits with five
    assert max(open_then) - min(open_then) <= ahead
    assert len({path.name for path in bench.scratch.glob("job-*")}) <= 20 + 4


@is_mirror
async def test_a_lease_that_has_lost_its_slots_keeps_what_makes_sandboxes(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.sh("true")
    bench.sandboxes.keep_ready(0)
    bench.sandboxes.prepare()
    assert (await bench.sh("true")).exit == Exit(0)
    assert "spawner-died" not in caplog.text


# -- output -----------------------------------------------------------------------------------------------------------


@is_mirror
async def test_output_and_errors_come_apart(bench: Bench) -> None:
    ended = await bench.sh("echo out; echo err >&2; echo more")
    assert (ended.stdout, ended.stderr) == (b"out\nmore\n", b"err\n")


@is_mirror
async def test_merged_output_keeps_its_order(bench: Bench) -> None:
    ended = await bench.sh("for i in $(seq 200); do echo o$i; echo e$i >&2; done", merge=True)
    assert ended.stdout == b"".join(b"o%d\ne%d\n" % (i, i) for i in range(1, 201))
    assert ended.stderr == b""


@is_mirror
async def test_what_is_written_right_before_the_end_arrives(bench: Bench) -> None:
    for _ in range(20):
        ended = await bench.sh("head -c 60000 /dev/zero; exit 3")
        assert (len(ended.stdout), ended.exit) == (60_000, Exit(3))


@is_mirror
async def test_a_slow_reader_holds_the_job_back_and_gets_everything(bench: Bench) -> None:
    received = bytearray()

    def is_done() -> bool:
        written = [upper / os.fsdecode(PROJECT) for upper in bench.scratch.glob("job-*/upper")]
        assert len(written) == 1, "the job has one scratch directory"
        return (written[0] / "done").exists()

    async def on_output(chunk: bytes) -> None:
        if not received:
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert not is_done(), "10 MiB do not fit into a pipe"
        received.extend(chunk[1:])
        await trio.lowlevel.checkpoint()

    script = b"head -c 10485760 /dev/urandom | tee copy; echo > done"
    result = await bench.sandboxes.run(bench.spec(b"sh", b"-c", script), on_output)
    assert result.exit == Exit(0)
    assert is_done()
    assert bytes(received) == (result.upper / os.fsdecode(PROJECT) / "copy").read_bytes()


@is_mirror
async def test_a_job_that_reads_what_it_has_written_itself_stops_nobody(bench: Bench) -> None:
    script = "cat </proc/self/fd/1 >/dev/null & for i in $(seq 3000); do echo $i; done; kill $!; wait; seq 50000"
    with trio.fail_after(30):
        ended = await bench.sh(script)
    assert ended.exit == Exit(0)
    assert ended.stdout.endswith(b"".join(b"%d\n" % number for number in range(1, 50_001)))


@is_mirror
async def test_what_a_job_leaves_running_in_the_background_ends_with_it(bench: Bench) -> None:
    with trio.fail_after(10):
        ended = await bench.sh("sleep 1234567 & (setsid sleep 1234567 &) ; echo started")
    assert (ended.exit, ended.stdout) == (Exit(0), b"started\n")
    assert not running(b"1234567")


# -- killing ----------------------------------------------------------------------------------------------------------

# The commands of another process of pytest have another number.
NAP = str(7_000_000 + os.getpid() % 1_000_000)
STUBBORN = f"trap '' TERM INT HUP; echo ready; (setsid sh -c 'trap \"\" TERM; sleep {NAP}') & sleep {NAP}; sleep {NAP}"


def running(word: bytes) -> list[str]:
    def has_it(pid: str) -> bool:
        try:
            return word in Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False

    return [pid for pid in os.listdir("/proc") if pid.isdigit() and has_it(pid)]


@is_mirror
async def test_a_cancelled_job_is_dead_when_run_returns(bench: Bench) -> None:
    with trio.CancelScope() as scope:

        async def on_output(chunk: bytes) -> None:
            assert running(NAP.encode())
            scope.cancel()

        with trio.fail_after(10):
            await bench.sandboxes.run(bench.spec(b"sh", b"-c", STUBBORN.encode()), on_output)
    assert scope.cancelled_caught
    assert not running(NAP.encode())
    bench.sandboxes.discard(1)
    bench.sandboxes.scratch.clear_up()
    with trio.fail_after(10):
        while os.listdir(bench.scratch) != ["parts"]:  # noqa: ASYNC110  # a process that nobody waits for tells nobody
            await trio.sleep(0.001)


@is_mirror
async def test_what_the_reader_of_output_raises_ends_the_job_and_passes_through(bench: Bench) -> None:
    class Gone(Exception):
        pass

    async def on_output(chunk: bytes) -> None:
        raise Gone

    with trio.fail_after(10), pytest.raises(Gone):
        await bench.sandboxes.run(bench.spec(b"sh", b"-c", STUBBORN.encode()), on_output)
    assert not running(NAP.encode())


@is_mirror
async def test_a_job_whose_time_is_up_is_killed_and_keeps_what_it_wrote(bench: Bench) -> None:
    kills: list[None] = []
    with trio.fail_after(10):
        ended = await bench.sh(f"echo kept > f; {STUBBORN}", timeout_s=0.3, on_kill=lambda: kills.append(None))
    assert ended.result.timed_out
    assert (ended.exit, ended.stdout) == (Exit(0, signal.SIGKILL), b"ready\n")
    assert not running(NAP.encode())
    assert len(kills) == 1
    assert [change.path for change in (await bench.collect(ended)).changes] == [PROJECT, PROJECT + b"/f"][1:]


@is_mirror
async def test_a_sandbox_that_is_killed_when_the_jobs_time_is_up_has_left_no_result(bench: Bench) -> None:
    pids: list[int] = []
    with trio.fail_after(10), pytest.raises(Retryable, match="died before its command ended"):
        await bench.sh(
            "echo kept > f; exec sleep 1000",
            timeout_s=0.3,
            on_pid=pids.append,
            on_kill=lambda: os.kill(pids[0], signal.SIGKILL),
        )


@pytest.fixture
async def watched(bench: Bench) -> AsyncIterator[Bench]:
    """Yield a bench whose sandboxes are watched, as the mirror does."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.sandboxes.keep_watching)
        yield bench
        nursery.cancel_scope.cancel()


class Steps(trio.abc.Instrument):
    """A count of the steps of all tasks."""

    count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


@is_mirror
async def test_the_watches_sleep_when_no_job_runs(watched: Bench) -> None:
    await watched.sh("true")
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    await trio.sleep(0.2)  # the watches look twice in this time
    trio.lowlevel.remove_instrument(steps)
    assert steps.count < 50


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


@is_mirror
@pytest.mark.logs("sandbox-stands-still")
async def test_a_sandbox_that_somebody_stops_goes_on(watched: Bench) -> None:
    with trio.fail_after(10):
        ended = await watched.sh("sleep 0.1; echo done", on_pid=stop)
    assert (ended.exit, ended.stdout) == (Exit(0), b"done\n")


@is_mirror
@pytest.mark.logs("sandbox-stands-still")
async def test_a_sandbox_that_is_stopped_while_it_waits_takes_its_job(watched: Bench) -> None:
    await watched.sandboxes.wait_ready()
    for pid in first_processes(watched):
        stop(pid)
    with trio.fail_after(10):
        ended = await watched.sh("echo done")
    assert (ended.exit, ended.stdout) == (Exit(0), b"done\n")


@is_mirror
@pytest.mark.logs("sandbox-stands-still", "sandbox-killed")
async def test_a_sandbox_that_cannot_be_resumed_is_killed_and_its_job_tried_elsewhere(
    watched: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("termite.fuse.sandbox.standstill.PATIENCE_S", 1.0)
    kills: list[None] = []

    async def stop_again_and_again(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            while True:
                stop(pid)
                await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        with trio.fail_after(10), pytest.raises(Retryable, match="was stopped by a signal") as caught:
            await watched.sh(
                f"exec sleep {NAP}",
                on_pid=lambda pid: nursery.start_soon(stop_again_and_again, pid),
                on_kill=lambda: kills.append(None),
            )
        nursery.cancel_scope.cancel()
    assert caught.value.reason is Reason.SANDBOX_STUCK and kills == [None]
    assert not running(NAP.encode())


@is_mirror
async def test_a_stopped_sandbox_is_killed_at_once_when_its_job_is_cancelled(bench: Bench) -> None:
    def stop_and_cancel(pid: int) -> None:
        stop(pid)
        scope.cancel()

    with trio.fail_after(5), trio.CancelScope() as scope:
        await bench.sh(f"echo x; exec sleep {NAP}", on_pid=stop_and_cancel)
    assert scope.cancelled_caught
    assert not running(NAP.encode())


@is_mirror
async def test_a_command_that_stops_itself_waits_as_it_does_without_termite(
    watched: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("termite.fuse.sandbox.standstill.PATIENCE_S", 0.5)
    outputs: list[bytes] = []

    async def on_output(chunk: bytes) -> None:
        outputs.append(chunk)
        if chunk == b"1before\n":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(resume_later)

    async def resume_later() -> None:
        with trio.fail_after(5):
            while not (stopped := stopped_commands()):  # noqa: ASYNC110  # a process that stops tells nobody
                await trio.sleep(0.01)
        await trio.sleep(2)  # four times the patience with a sandbox
        os.kill(stopped[0], signal.SIGCONT)

    result = await watched.sandboxes.run(
        watched.spec(b"sh", b"-c", f": {NAP}; echo before; kill -STOP $$; echo after".encode()), on_output
    )
    assert (result.exit, b"".join(outputs)) == (Exit(0), b"1before\n1after\n")


def stopped_commands() -> list[int]:
    return [
        pid
        for pid in processes_running(NAP.encode() + b"; echo")
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    ]


@is_mirror
async def test_a_job_that_ends_in_time_is_not_killed(bench: Bench) -> None:
    kills: list[None] = []
    ended = await bench.sh("true", timeout_s=30, on_kill=lambda: kills.append(None))
    assert (ended.result.timed_out, kills) == (False, [])


@is_mirror
async def test_a_job_may_be_cancelled_before_it_has_begun(bench: Bench) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await bench.sh(f"sleep {NAP}")
    assert scope.cancelled_caught
    assert not running(NAP.encode())


@is_mirror
async def test_a_caller_that_fails_when_told_the_pid_leaves_no_job_behind(bench: Bench) -> None:
    class Gone(Exception):
        pass

    def on_pid(pid: int) -> None:
        raise Gone

    with trio.fail_after(10), pytest.raises(Gone):
        await bench.sh(f"sleep {NAP}", on_pid=on_pid)
    assert not running(NAP.encode())
