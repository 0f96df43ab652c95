"""Run a shell for `termite-ctl shell` in a sandbox on a worker, in the surroundings of a job.

The shell is a job: it has a view, limits and a filter of system calls like every other. But no rule
judges it, it never runs on this machine, and it does not run twice. Nothing that it writes comes
home unless its user has asked for that.
"""

import contextlib
import dataclasses
import functools
import logging
import os
from collections.abc import AsyncIterator

import msgspec
import trio

from termite.engine.decide.environment import Environment, environment_of
from termite.engine.errors import (
    Conflict,
    ExitCode,
    FsError,
    HalfPublished,
    Reason,
    ResultRefused,
    Retryable,
    TermiteError,
    UserError,
    first_error,
)
from termite.engine.fleet.lease import Lease
from termite.engine.fleet.pool import NoWorker
from termite.engine.launch.connection import Launcher, LauncherGone
from termite.engine.launch.invocation import JobRequest, ShellWish
from termite.engine.launch.listener import RestOfJob
from termite.engine.master.job import Job
from termite.engine.master.job_reports import absolute, report_dropped
from termite.engine.master.remote_runs.dispatch import dispatch
from termite.engine.master.remote_runs.protocol_breaches import ProtocolBreaches
from termite.engine.master.results import publish_results
from termite.engine.master.run_job import JobRunner, check_result, run_on_worker
from termite.engine.master.shared import Master
from termite.engine.master.worker_shell.job_surroundings import Surroundings
from termite.engine.model import Command, Exit, Phase, Verdict
from termite.engine.tree.logic.times import Timing
from termite.engine.wire.protocol.foreign_text import printable
from termite.engine.wire.protocol.messages import Ran, UseTerminal

KEYS_BYTES = 4096  # of one read from the keyboard: a terminal takes no more of a line
START_WORKER = "`termite-ctl status` shows the workers, `termite-ctl doctor` what this machine lacks"

log = logging.getLogger(__name__)


class JobAndShellRunner(JobRunner):
    """A runner of a master that starts shells, too."""

    def begin(self, launcher: Launcher, request: JobRequest) -> RestOfJob | None:
        """Begin a job or a shell for `launcher`, as `JobRunner.begin` says."""
        if request.shell is None:
            return super().begin(launcher, request)
        return functools.partial(self.run_steps, self.new_job(launcher, request), run_shell)


async def run_shell(master: Master, job: Job) -> Exit:
    """Run the shell of a job from its start to its end, and return its exit.

    The user is notified of what is wrong; the exit is then 100. Raise LauncherGone if termite-ctl
    has closed the connection.
    """
    try:
        command = prepare(master, job)
        await master.settled_check.wait()
        return await run_on_some_worker(master, job, command)
    except LauncherGone:
        raise
    except Exception as error:  # around one shell: a bug of ours ends neither the build nor the master
        lines = _lines_about(job, error)
    job.output.release_nowait()
    await job.launcher.stop_reading()
    for line in lines:
        await job.launcher.notice(f"termite: {line}")
    return Exit(ExitCode.FAILED)


def _lines_about(job: Job, error: Exception) -> tuple[str, ...]:
    """Return what the user is told about the error that is being handled; log it if it is a bug."""
    match error:
        case HalfPublished():
            return error.lines
        case NoWorker():
            return (f"no worker is available: {error} ({START_WORKER})",)
        case ResultRefused():
            return (f"nothing came home: {error.reason.words}: {', '.join(map(printable, error.places))}",)
        case Conflict():
            return (f"nothing came home: {error.reason.words}: {', '.join(absolute(error.paths))}",)
        case UserError():
            return (f"{error.message} ({error.hint})" if error.hint else error.message,)
        case FsError():
            return (f"the results could not be written: {os.strerror(error.errno)}",)
        case Retryable():
            return (f"the shell has ended: {error.reason.words}{f': {error.detail}' if error.detail else ''}",)
    log.exception("shell-failed job=%d", job.id)
    return (f"the shell has ended: {Reason.INTERNAL_ERROR.words}: {error!r}",)


def prepare(master: Master, job: Job) -> Command:
    """Give the job the surroundings that its user has asked for, and return its command.

    Raise UserError if there are none.
    """
    wish, asked = job.request.shell, job.request
    assert wish is not None, "it is a shell"
    if found := master.find_difference(asked.vantage, asked.invocation.cwd):
        raise UserError(f"termite-ctl was {found.words}", hint="a shell sees the files of the master")
    surroundings = surroundings_of(master, wish) if wish.job else None
    env = asked.invocation.env if surroundings is None else surroundings.env
    cwd = asked.invocation.cwd if surroundings is None else surroundings.cwd
    rule = None
    if surroundings is not None:
        rule = dataclasses.replace(surroundings.rule, timeout_s=0.0) if surroundings.rule else None
        inherited = dataclasses.replace(surroundings.inherited, ignored=0, descriptor=0)
        job.request = msgspec.structs.replace(asked, umask=surroundings.umask, inherited=inherited)
    if job.terminal is not None:
        job.terminal = msgspec.structs.replace(job.terminal, is_typed_at=True)
        if term := asked.invocation.env.get("TERM"):
            env = Environment({**env, "TERM": term})
    job.verdict = Verdict(local=False, rule=rule)
    argv = asked.invocation.argv
    job.command = Command(argv, asked.invocation.exe, asked.invocation.search, cwd, env, " ".join(argv))
    return job.command


def surroundings_of(master: Master, wish: ShellWish) -> Surroundings | None:
    """Return the surroundings of a job, or None if only its record is left, of an earlier master.

    Raise UserError if nothing is known of the job.
    """
    found, number = master.surroundings.find(wish.job), wish.job
    if found is not None or wish.is_recorded:
        return found
    known = master.surroundings.numbers
    hint = f"this master remembers jobs {known[0]} to {known[1]}" if known else "this master has had no job yet"
    raise UserError(f"job {number} is not known", hint=f"{hint}; without a number the shell is in the tree")


async def run_on_some_worker(master: Master, job: Job, command: Command) -> Exit:
    """Run the shell on the worker that had its job, or on another one if that has no lease.

    Raise NoWorker, Retryable, and what the publication of its results raises.
    """
    master.tool_places.show_for(environment_of(command))
    while True:
        job.phase = Phase.WAITING
        async with master.pool.slot((), _others(master, job)) as lease:
            message = dispatch(master, job, command, lease)
            if message is None:
                master.pool.retire(lease)
                continue
            dispatched_ns = master.tree.now_ns()
            await job.launcher.notice(_place_of(master, job, command, lease))
            with ProtocolBreaches(master.pool, lease):
                async with _typing(job, lease):
                    ran = await run_on_worker(master, job, lease, message)
            job.output.release_nowait()
            await job.launcher.stop_reading()
            if ran.exec_errno:
                raise UserError(
                    f"{printable(command.exe)} cannot be started on {lease.worker}: {os.strerror(ran.exec_errno)}",
                    hint="SHELL=/bin/sh termite-ctl shell takes another one",
                )
            timing = Timing(dispatched_ns, ran.started_ns, ran.ended_ns, lease.offset_ns, message.number)
            with ProtocolBreaches(master.pool, lease):
                await _keep_results(master, job, lease, ran, timing)
            return ran.exit


def _others(master: Master, job: Job) -> list[str]:
    """Return the workers that the shell must not run on: it wants the one that had its job."""
    wish = job.request.shell
    found = master.surroundings.find(wish.job) if wish and wish.job else None
    names = {lease.worker for lease in master.pool.leases if lease.is_open}
    return sorted(names - {found.worker}) if found and found.worker in names else []


def _place_of(master: Master, job: Job, command: Command, lease: Lease) -> str:
    wish = job.request.shell
    whose = "of this terminal"
    if wish and wish.job:
        is_known = master.surroundings.find(wish.job) is not None
        whose = f"of job {wish.job}" if is_known else f"{whose}, because this master does not remember job {wish.job}"
    kept = "what it writes in the tree comes home at its end" if wish and wish.keeps else "nothing it writes comes home"
    return f"termite: on {lease.worker}, in {printable(command.cwd)}, with the environment {whose}; {kept}"


@contextlib.asynccontextmanager
async def _typing(job: Job, lease: Lease) -> AsyncIterator[None]:
    """Pass the keys of the launcher's terminal on to the shell, until the block ends."""
    if job.terminal is None:
        yield
        return

    async def type_keys() -> None:
        with contextlib.suppress(TermiteError):  # the shell then ends as well, or nobody types any more
            while keys := await job.launcher.read_stdin(KEYS_BYTES):
                await job.posted.wait()
                # With the size, which another task may pass on later: what is typed may ask for it.
                size = job.terminal.size if job.terminal else None
                await lease.use_terminal(UseTerminal(job.id, size, keys))

    with first_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(type_keys)
            yield
            nursery.cancel_scope.cancel()


async def _keep_results(master: Master, job: Job, lease: Lease, ran: Ran, timing: Timing) -> None:
    """Publish what the shell has written if its user wants that, and notify them of the rest."""
    wish = job.request.shell
    if wish is not None and wish.keeps:
        await check_result(master, job, ran)
        await publish_results(master, job, lease, ran, timing)
        if ran.dropped:
            await report_dropped(master, job, ran.dropped)
    elif ran.changes:
        await job.launcher.notice(
            f"termite: changes in the tree that stayed on the worker: {len(ran.changes)} (-keep brings them home)"
        )
