"""Run one job from top to bottom: first `run_at_once`, then `run_job`.

The functions below them are its steps, in the order in which they happen. A job that `run_at_once`
ends never gets a task of its own, so that function must not wait.
"""

import functools
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import NamedTuple

import trio

from termite.engine.decide.command_memory import key_of
from termite.engine.decide.environment import environment_of
from termite.engine.decide.logic.commands import is_no_op
from termite.engine.decide.refused_commands import Refusal
from termite.engine.errors import (
    Conflict,
    FsError,
    HalfPublished,
    Outdated,
    Reason,
    ResultRefused,
    Retryable,
    UserError,
)
from termite.engine.fleet.lease import Lease
from termite.engine.fleet.pool import NoWorker
from termite.engine.host.descriptors import shortage_text
from termite.engine.launch.connection import Launcher, LauncherGone
from termite.engine.launch.invocation import JobRequest
from termite.engine.launch.listener import RestOfJob
from termite.engine.launch.output import OutputDiffers
from termite.engine.master.fallback import (
    end_differing,
    fall_back,
    refuse_misplaced,
    run_for_its_machine,
    run_here_instead,
    run_with_unseen_program,
)
from termite.engine.master.job import Job, new_job, run_at_terminal
from termite.engine.master.job_reports import (
    absolute,
    count_attempt,
    outside_writes,
    report_half_published,
    report_happened,
    report_result,
)
from termite.engine.master.local_jobs import run_local, start_at_once, start_local, start_unrecalled, tie_by_environment
from termite.engine.master.remote_runs.crossed_devices import refuse_crossed_devices
from termite.engine.master.remote_runs.dispatch import dispatch
from termite.engine.master.remote_runs.late_inputs import check_failure
from termite.engine.master.remote_runs.learnt_run_times import learn_run_time
from termite.engine.master.remote_runs.machine_questions import UnlikeWorker, Wanted, unlike_workers, wanted_by
from termite.engine.master.remote_runs.protocol_breaches import ProtocolBreaches
from termite.engine.master.results import publish_results
from termite.engine.master.retries import record_conflict, record_failure
from termite.engine.master.reuse.ended_jobs import EndedJobRun, keep_ended
from termite.engine.master.reuse.recalled_jobs import recall_job
from termite.engine.master.reuse.run_observer import ObservedRun
from termite.engine.master.shared import Master
from termite.engine.master.user_notices.notices import NoticeKind
from termite.engine.model import Command, Exit, MachineFacts, Phase, Verdict
from termite.engine.tree.logic.times import Timing
from termite.engine.wire.protocol.messages import Ran, Run

# With these, no other worker would do better.
NO_OTHER_WORKER = frozenset({Reason.NOT_AT_REST, Reason.TOO_LARGE})
NEW_BUILD_S = 10.0  # if no job ran for this time, the next one belongs to a new build

log = logging.getLogger(__name__)


class RemoteRun(NamedTuple):
    """A run on a worker whose results are published.

    `conflicts` are those of `publish_results`. `took_s` is the time from dispatch to here.
    `observed` is None if the run was not observed. `machine` is that of the worker.
    """

    ran: Ran
    conflicts: tuple[bytes, ...]
    took_s: float
    observed: ObservedRun | None
    machine: MachineFacts


class JobRunner:
    """The runner of a master: it starts the jobs of launchers."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._last_job = master.recorder.last_job

    def begin(self, launcher: Launcher, request: JobRequest) -> RestOfJob | None:
        """Begin a job for `launcher`. Return its remaining steps, or None if the job is done."""
        master = self._master
        now_s = trio.current_time()
        if now_s - master.last_busy_s > NEW_BUILD_S and not master.jobs:
            master.begin_build()
        master.last_busy_s = now_s
        job = self.new_job(launcher, request)
        master.recorder.begin(job)
        try:
            if run_at_once(master, job):
                return None
        except LauncherGone:
            master.recorder.cancelled(job)
            raise
        except Exception as error:  # around one job: `run_steps` reports it
            job.bug = error
        return functools.partial(self._run, job)

    def new_job(self, launcher: Launcher, request: JobRequest) -> Job:
        """Return a new job with the next number."""
        self._last_job += 1
        return new_job(self._last_job, launcher, request, self._master.held_outputs)

    async def _run(self, job: Job) -> Exit | None:
        with self._master.recorder.following(job):
            return await self.run_steps(job, run_job)

    async def run_steps(self, job: Job, steps: Callable[[Master, Job], Awaitable[Exit | None]]) -> Exit | None:
        """Run the remaining steps of the job, and return as `run_job` does."""
        master = self._master
        master.jobs[job.id] = job
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            if job.bug is not None:
                raise job.bug
            return await steps(master, job)
        except LauncherGone:
            raise
        except Exception as error:  # around one job: a bug of ours does not end the build
            log.exception("job-failed job=%d", job.id)
            if job.ticket is not None and job.ticket.has_happened:
                return await report_happened(master, job, job.ticket, error)
            return await run_here_instead(master, job, Reason.INTERNAL_ERROR, (repr(error),))
        except trio.Cancelled:
            # The user has stopped the job, which does not run again: its output is shown.
            job.output.release_nowait()
            raise
        finally:
            job.output.drop()  # otherwise its timer would write to a connection that is closed
            del master.jobs[job.id]
            master.last_busy_s = trio.current_time()


def run_at_once(master: Master, job: Job) -> bool:
    """Parse the command, decide where it runs, and do everything that needs no waiting.

    Return True if the job is done: its launcher was answered, or executes the command itself.
    """
    job.plugin, command = master.plugins.parse_with_plugin(job.request.invocation)
    job.command = command
    if is_no_op(command):
        for counters in master.counters_of(job):
            counters.answered += 1
        job.launcher.finish_nowait(Exit(0))
        master.recorder.answered(job)
        return True
    job.warning = master.rule_file.refresh()
    verdict = job.verdict = master.decide(job.request.invocation.how, command)
    master.remember(job)
    if master.short.is_on and not verdict.rule:
        job.key = key_of(command)
    if not verdict.local:
        verdict = judge_by_memory(master, job, command, verdict)
    if has_warnings(master, job) or job.launcher.has_unread_frames or master.tree.is_finishing:
        return False
    if master.is_misplaced(job.request.invocation.cwd):
        return False
    return start_local(master, job) if verdict.local else start_at_once(master, job)


def judge_by_memory(master: Master, job: Job, command: Command, verdict: Verdict) -> Verdict:
    """Return the verdict on a command that no rule makes local, by what is known of it.

    Note in the job the place that ties it to this machine. Commands that name it are tied, too.
    """

    def find_refusal() -> Refusal | None:
        if not master.refused.are_known:
            return None
        key = job.key or key_of(command)
        refusal = master.refused.find(key, time.time())
        master.refused.count_run(key)
        return refusal

    tie = master.find_tie(command, verdict, job.request.invocation.env, find_refusal)
    if tie is None:
        return verdict
    is_later_code = tie.reason is Reason.LATER_CODE
    if tie.reason is not Reason.NAMES_FIFO and not is_later_code:
        is_outside = tie.reason is Reason.WRITES_OUTSIDE
        job.place = master.outside.add_place(tie.place) if is_outside else tie.place
    job.verdict = Verdict(local=True, tie=tie.reason, program=tie.place if is_later_code else "")
    return job.verdict


async def run_job(master: Master, job: Job) -> Exit | None:
    """Run the remaining steps of a job (docs/develop/architecture.md, "One job").

    Return the exit that the launcher gets, or None if the launcher executes the command itself.
    Raise LauncherGone if the launcher closed the connection; the listener ends the job.
    """
    assert job.command is not None and job.verdict is not None, "run_at_once was called"
    if master.is_misplaced(job.request.invocation.cwd):
        return await refuse_misplaced(master, job)
    if master.tree.is_finishing:  # a job that was cancelled too late: the next command sees all of its results
        await master.tree.finished()
    await show_warnings(master, job)
    if job.verdict.local:
        await run_local(master, job)
        return None
    if found := master.find_difference(job.request.vantage, job.request.invocation.cwd):
        # A local command sees its own files and users, so only remote ones are checked. The user
        # is notified once in each build.
        is_new = bool(master.notices.select_new(found, [b"elsewhere"]))
        return await fall_back(master, job, found, "", quiet=not is_new)
    if descriptor := job.request.inherited.descriptor:
        return await fall_back(master, job, Reason.DESCRIPTOR_INHERITED, f"descriptor {descriptor}")
    if job.launcher.is_one_too_many:
        is_new = bool(master.notices.select_new(Reason.NO_RESOURCES, [b"descriptors"]))
        return await fall_back(master, job, Reason.NO_RESOURCES, shortage_text(), quiet=not is_new)
    job.phase = Phase.WAITING
    try:
        await master.settled_check.wait()
    except UserError as error:
        return await fall_back(master, job, Reason.SETTLED_UNREADABLE, repr(error.__cause__))
    return await recall_or_run(master, job, job.command)


async def recall_or_run(master: Master, job: Job, command: Command) -> Exit | None:
    """Answer with a stored result, or run the command on a worker, and return as `run_job` does."""
    try:
        master.tool_places.show_for(environment_of(command))
    except Retryable as error:
        return await run_here_instead(master, job, error.reason, (error.detail,))
    if tie_by_environment(job, command):
        await run_local(master, job)
        return None
    wanted = wanted_by(master, job, command)
    if master.cache is not None:
        if (exit := await recall_job(master, master.cache, job, command, wanted)) is not None:
            return exit
        if start_unrecalled(master, job):
            return None
        with master.cache.twins.running(job.weak) if job.is_stored else nullcontext():
            return await try_workers(master, job, command, wanted)
    return await try_workers(master, job, command, wanted)


async def try_workers(master: Master, job: Job, command: Command, wanted: Wanted) -> Exit | None:
    """Run the command on one worker after another, and return as `run_job` does."""
    while job.can_retry:
        job.phase = Phase.WAITING
        try:
            if attempt := await run_remotely(master, job, command, wanted):
                return await end_remote(master, job, attempt)
        except UnlikeWorker:
            return await run_for_its_machine(master, job)
        except NoWorker as error:
            if wanted.questions and master.pool.leases:  # the workers that are alike do not answer
                return await run_for_its_machine(master, job)
            return await fall_back(master, job, Reason.NO_WORKER, str(error))
        except HalfPublished as error:
            return await report_half_published(master, job, error)
        except FsError as error:
            return await run_here_instead(master, job, Reason.NOT_PUBLISHED, (os.strerror(error.errno),))
        except ResultRefused as error:
            return await run_here_instead(master, job, error.reason, error.places)
        except OutputDiffers:
            return await end_differing(master, job)
        except Conflict as error:
            job.output.drop()
            if not record_conflict(master, job, error):
                return await run_here_instead(master, job, error.reason, absolute(error.paths), error.derived)
        except Retryable as error:
            if error.reason.is_for_here:
                return await run_here_instead(master, job, error.reason, (error.detail,) if error.detail else ())
            job.output.drop()  # the next worker may be long in coming
            if error.reason is Reason.UNSEEN_PROGRAM:
                return await run_with_unseen_program(master, job, command, error.detail)
            no_other = error.reason in NO_OTHER_WORKER
            if no_other or (job.may_have_used_network and error.reason is not Reason.NETWORK_DENIED):
                return await run_here_instead(master, job, error.reason, (error.detail,) if error.detail else ())
            record_failure(master, job, error)
    return await fall_back(master, job, job.failures[-1].reason, job.failures[-1].detail)


def has_warnings(master: Master, job: Job) -> bool:
    """Return True if `show_warnings` has something to say."""
    warning = environment_of(job.request.invocation).warning
    is_ignored = bool(warning) and master.notices.is_new(NoticeKind.SETTINGS_IGNORED, os.fsencode(warning))
    return bool(job.warning) or bool(master.tree.discarded) or is_ignored


async def show_warnings(master: Master, job: Job) -> None:
    """Notify the user of ignored rules and settings, and of results that were discarded."""
    while master.tree.discarded:
        await job.launcher.notice(f"termite: {master.tree.discarded.take()}")
    if job.warning:
        await job.launcher.notice(f"termite: {master.rule_file.remark_on(job.warning)}")
    warning = environment_of(job.request.invocation).warning
    if warning and master.notices.select_new(NoticeKind.SETTINGS_IGNORED, [os.fsencode(warning)]):
        await job.launcher.notice(f"termite: {warning}")


async def run_remotely(master: Master, job: Job, command: Command, wanted: Wanted) -> RemoteRun | None:
    """Run the command on a worker, and publish its results. Return None if another lease is needed.

    Raise NoWorker, UnlikeWorker, Retryable, OutputDiffers, and the errors of `publish_results`.
    """
    async with master.pool.slot(job.failed_on, unlike_workers(master, wanted)) as lease:
        wanted.check(lease.machine)
        message, seals = dispatch(master, job, command, lease), master.tree.notes.seals
        if message is None:
            master.pool.retire(lease)
            return None
        if job.notes.attempts:
            count_attempt(master, job, lease)
        observer = master.observer_of(message) if message.trace else None
        dispatched_ns, dispatched_s = master.tree.now_ns(), trio.current_time()
        with master.recorder.attempt(job, lease), ProtocolBreaches(master.pool, lease):
            ran = await run_on_worker(master, job, lease, message)
            master.recorder.command_ended(job, ran, lease.offset_ns)
            if lease.newest_seal > seals:  # the job may have taken a private file for absent
                raise Outdated("a symlink to a private file was met")
            await check_result(master, job, ran)
            await job.output.check_end()
            refuse_crossed_devices(job)
            timing = Timing(dispatched_ns, ran.started_ns, ran.ended_ns, lease.offset_ns, message.number)
            if observer is not None and master.config.trace and (ran.exit.code or ran.exit.signal):
                await check_failure(master, job, ran, observer, timing)
            observed = None
            if observer is not None and job.is_stored and master.cache is not None:
                question = master.cache.table_question(job, ran)
                observed = await observer.observe(ran, lease.traced_names, timing, job.weak, question)
            conflicts = await publish_results(master, job, lease, ran, timing)
    return RemoteRun(ran, conflicts, trio.current_time() - dispatched_s, observed, lease.machine)


async def end_remote(master: Master, job: Job, attempt: RemoteRun) -> Exit | None:
    """Report a run whose results are published, and return as `run_job` does."""
    ran = attempt.ran
    if master.refused.are_known and job.command is not None:
        master.refused.forget(job.key or key_of(job.command))
    if job.key:
        learn_run_time(master, job.key, ran, attempt.took_s, is_alone=not job.has_met_others)
    if ran.exec_errno:
        return await fall_back(master, job, Reason.EXEC_FAILED, os.strerror(ran.exec_errno), quiet=True)
    master.recorder.published(job, len(attempt.conflicts))
    job.number = None  # the journal may drop its changes, however slow the launcher is
    job.output.release_nowait()
    await job.launcher.stop_reading()
    await report_result(master, job, ran, attempt.conflicts)
    if attempt.observed is not None and master.cache is not None:
        keep_ended(master, master.cache, job, EndedJobRun(ran, attempt.observed, attempt.machine))
    return ran.exit


async def run_on_worker(master: Master, job: Job, lease: Lease, message: Run) -> Ran:
    """Run the command on the worker of `lease`, and forward its output to the launcher meanwhile.

    Raise Retryable if the attempt failed and the command is not to blame.
    """
    master.surroundings.note_worker(job.id, lease.worker)
    if message.network:
        await job.launcher.forbid_second_run()
    job.phase = Phase.RUNNING
    job.rewind()
    job.is_executed = True
    ran = await (run_at_terminal(job, lease, message) if message.terminal else lease.run(message, job.output.forward))
    master.pool.succeeded(lease)
    master.is_without_worker = False
    return ran


async def check_result(master: Master, job: Job, ran: Ran) -> None:
    """Raise ResultRefused if the job wrote outside the tree, shows owners, or lets code run later.

    Writes that may be dropped do not count. A command that exceeded its time limit does not run
    here, where it would have none. A rule may allow results that make code run later.
    """
    if ran.dropped and not ran.timed_out and (lost := outside_writes(master, job, ran.dropped).lost):
        raise ResultRefused(Reason.WRITES_OUTSIDE, lost)
    rule = job.verdict.rule if job.verdict else None
    if rule is None and master.tree.notes.is_mixed and job.command and master.depends_on_owners(job.command):
        raise ResultRefused(Reason.OWNERS_SHOWN, ())
    if rule is not None and rule.trusted:
        return
    if found := await master.find_later_code(ran.changes):
        raise ResultRefused(Reason.LATER_CODE, [os.fsdecode(path) for path in found])
