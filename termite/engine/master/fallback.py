"""Fall back: run a command on the master's machine that should have run on a worker.

The reason is that no worker can run it, or that the result of its remote run was refused. If that
must not be, the job fails with an exit code of termite. If the launcher has shown output of a
remote run, it compares the output of the command with that (native/launcher/streams/second_run.c).
"""

import logging
import os
from collections.abc import Collection, Sequence

from termite.engine.decide.command_memory import key_of
from termite.engine.decide.logic.command_mask import mask_text
from termite.engine.decide.logic.questions import reason_of_program
from termite.engine.decide.logic.switches import is_local_forbidden
from termite.engine.errors import ExitCode, Reason
from termite.engine.master.job import Job
from termite.engine.master.job_reports import NAMED_PLACES, record_refusal
from termite.engine.master.local_jobs import run_local
from termite.engine.master.remote_runs.startable import is_startable
from termite.engine.master.shared import Master
from termite.engine.model import Command, Exit, Verdict
from termite.engine.wire.protocol.foreign_text import printable

log = logging.getLogger(__name__)


async def run_here_instead(
    master: Master,
    job: Job,
    reason: Reason,
    places: Sequence[str] = (),
    derived: Collection[bytes] = (),
    *,
    quiet: bool = False,
) -> Exit | None:
    """Run the command on the master's machine, because the result of its remote run is refused.

    Nothing of the remote run may have been published: its files are thrown away, and held output is
    dropped. Output that the launcher has shown already is compared with the new run. `places` are
    the paths or details that are to blame, for the notice; () means that the reason says it all.
    `derived` are as for `run_local`, and `quiet` as for `fall_back`.

    Return None if the launcher executes the command. Otherwise return the exit that says why not:

    * 101 if the command has read from a stream, which nobody can give again.
    * 101 if the command had the network and was executed: another machine may have noticed it.
    * 103 if TERMITE_LOCAL=never.

    A remote run without the network leaves no other trace, so that a second run is the first one.
    Raise LauncherGone if the launcher closed the connection.
    """
    if reason.is_remembered:
        record_refusal(master, job, reason, places)
    named = ", ".join(printable(place) for place in places[:NAMED_PLACES])
    more = f" and {len(places) - NAMED_PLACES} more" if len(places) > NAMED_PLACES else ""
    if job.may_have_used_network:
        job.output.drop()
        await job.launcher.stop_reading()
        cause = "the command may have used the network and cannot be run again"
        return await _refuse(master, job, reason, named + more, cause, ExitCode.LOST)
    quiet = (quiet or _is_known(master, job, reason, named)) and not job.output.has_shown
    return await fall_back(master, job, reason, named + more, quiet=quiet, derived=derived)


def _is_known(master: Master, job: Job, reason: Reason, named: str) -> bool:
    """Return whether a notice of the refused result would tell the user nothing new.

    The summary of a build counts the commands, and names each place outside the tree.
    """
    if reason is Reason.LIMIT_TOO_HIGH:  # the summary does not name the limit
        return not master.notices.select_new(reason, [named.encode()])
    if not (reason.is_for_here or reason in (Reason.WRITES_OUTSIDE, Reason.CONFLICT, Reason.OTHER_MACHINE)):
        return False
    return master.builds > 0 or not master.notices.select_new(reason, [os.fsencode(job.place or named)])


async def run_with_unseen_program(master: Master, job: Job, command: Command, program: str) -> Exit | None:
    """Run a command here that has tried a program which jobs may not see.

    Return as `run_job` does.

    The command runs here at once when it comes again. The summary of the build names the program.
    """
    master.users_of_unseen.add(key_of(command), printable(program))
    if reason := reason_of_program(program):
        return await run_here_instead(master, job, reason, (program,))
    for counters in master.counters_of(job):
        counters.count_unseen(printable(program))
    return await run_here_instead(master, job, Reason.UNSEEN_PROGRAM, (program,), quiet=True)


async def fall_back(
    master: Master, job: Job, reason: Reason, detail: str, *, quiet: bool = False, derived: Collection[bytes] = ()
) -> Exit | None:
    """Run the command locally because no worker can, or return the exit code that says why not.

    The command must not run if it has consumed its input, or if TERMITE_LOCAL=never. A command that
    does not exist may always run: it fails with the words and the code that it has without termite.
    A command that shows owners or asks about the machine may run, too.
    Return None if the launcher executes it. `quiet`: print no notice if it runs. `derived` are as
    for `run_local`.
    """
    job.output.drop()
    await job.launcher.stop_reading()
    if job.stdin.is_consumed:
        cause = "the command has read its input and cannot be run again"
        return await _refuse(master, job, reason, detail, cause, ExitCode.LOST)
    is_hopeless = not is_startable(job.request.invocation)
    # Such a command is tied to this machine, but the tree has shown that only while it ran.
    may_run = is_hopeless or reason in (Reason.OWNERS_SHOWN, Reason.OTHER_MACHINE)
    if not may_run and is_local_forbidden(job.request.invocation.env):
        cause = "TERMITE_LOCAL=never forbids running the command on this machine"
        return await _refuse(master, job, reason, detail, cause, ExitCode.NOWHERE)
    _count(master, job, reason, detail)
    if reason is Reason.NO_WORKER:
        # One notice until there is a worker again: a build of many jobs needs no thousand lines.
        quiet, master.is_without_worker = master.is_without_worker, True
    if reason.deed and (worker := _worker_to_blame(job, reason)):
        is_new = bool(master.notices.select_new(reason, [worker.encode()]))
        quiet = (quiet or not is_new) and not job.output.has_shown
    if not quiet and not (is_hopeless and reason is Reason.NO_WORKER):
        again = ", again from its beginning" if job.output.has_shown else ""
        deed = f" ({reason.deed}; its further ones are only counted)" if reason.deed else ""
        text = _text(job, reason, detail)
        await job.launcher.notice(f"termite: 1 command runs on this machine{again}: {text}{deed}")
    await run_local(master, job, derived)
    return None


async def refuse_misplaced(master: Master, job: Job) -> Exit:
    """End a job that was started at the tree's own path, though it is built at another one."""
    return await _refuse(master, job, Reason.OTHER_PATH, "", f"use --at {master.root}", ExitCode.MISPLACED)


async def run_for_its_machine(master: Master, job: Job) -> Exit | None:
    """Run a command here that asks about its machine; return as `run_job` does.

    It is tied to this machine as long as no worker is alike, whatever TERMITE_LOCAL says.
    """
    if job.is_executed:  # on a worker that was alike, and has failed
        return await run_here_instead(master, job, Reason.OTHER_MACHINE)
    job.verdict = Verdict(local=True, tie=Reason.OTHER_MACHINE)
    await run_local(master, job)
    return None


async def end_differing(master: Master, job: Job) -> Exit:
    """End a job whose later run printed something else than the launcher has shown."""
    job.output.drop()
    await job.launcher.stop_reading()
    error = job.failures[-1]
    cause = "the command ran again and printed something else, so that its output would be of two runs"
    return await _refuse(master, job, error.reason, error.detail, cause, ExitCode.LOST)


async def _refuse(master: Master, job: Job, reason: Reason, detail: str, cause: str, code: ExitCode) -> Exit:
    """Let the job fail with `code`, and notify the user of the reason and the cause."""
    _count(master, job, reason, detail)
    hint = " (add a Local rule for it to .termite-localrc)" if reason is Reason.WRITES_OUTSIDE else ""
    master.recorder.refused(job, code)
    await job.launcher.notice(f"termite: {_text(job, reason, detail)}; {cause}{hint}")
    for counters in master.counters_of(job):
        counters.failed += 1
    return Exit(code)


def _count(master: Master, job: Job, reason: Reason, detail: str) -> None:
    for counters in master.counters_of(job):
        counters.fallbacks[reason] += 1
    master.recorder.fell_back(job, reason, detail)
    log.warning("job-fell-back job=%d detail=%r reason=%s", job.id, _masked(detail), reason)


def _masked(detail: str) -> str:
    """Return a detail without credentials: the text of an error may have words of the command."""
    return mask_text(detail, ())


def _text(job: Job, reason: Reason, detail: str) -> str:
    text = f"{reason.words}: {_masked(detail)}" if detail else reason.words
    worker = _worker_to_blame(job, reason)
    return f"worker {worker}: {text}" if worker else text


def _worker_to_blame(job: Job, reason: Reason) -> str:
    """Return the worker that is to blame for the last failed attempt, or "" if none is."""
    if not (job.failures and job.notes.attempts and job.failures[-1].reason is reason):
        return ""
    worker = job.notes.attempts[-1].worker
    return worker if worker in job.failed_on else ""
