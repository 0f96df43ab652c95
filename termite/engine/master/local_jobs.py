"""Let the launcher execute a job's command on the master's machine, at once or after a wait.

A rule or a tie makes the command local, or it is short, or no worker can run it (fallback.py).
These are steps of a job; the processes and their slots are in engine/launch/local_runs.py.
"""

from collections.abc import Callable, Collection

import trio

from termite.engine.decide.environment import environment_of
from termite.engine.decide.local_or_remote import may_run_as_short
from termite.engine.decide.logic.switches import is_local_forbidden
from termite.engine.errors import Reason
from termite.engine.master.job import Job
from termite.engine.master.job_reports import count_local
from termite.engine.master.reuse.short_command_recall import is_to_be_traced, may_be_recalled
from termite.engine.master.shared import Master
from termite.engine.model import Command, Phase, Verdict


def tie_by_environment(job: Job, command: Command) -> bool:
    """Tie a command to this machine if its environment leads it to a place that jobs must not see.

    Call this when the environment was shown. Return whether the command is tied. It is not if
    TERMITE_LOCAL=never, as in `tie_by_memory`.
    """
    place = environment_of(command).private_place
    if not place or is_local_forbidden(job.request.invocation.env):
        return False
    job.place, job.verdict = place, Verdict(local=True, tie=Reason.NAMES_PRIVATE)
    return True


def start_local(master: Master, job: Job) -> bool:
    """Let the launcher execute the command, because a rule or a tie makes it local.

    A command that starts jobs itself (`recurse`) takes no slot, nor does one that may wait at a
    FIFO for another command. Return False if the command must wait for a slot.
    """
    rule = job.verdict.rule if job.verdict else None
    is_recursive = rule is not None and rule.recurse
    if is_recursive or (job.verdict is not None and job.verdict.tie is Reason.NAMES_FIFO):
        job.launcher.replace_nowait(recurse=is_recursive)
        master.recorder.handed_over(job)
    elif job.place and master.tree.misses_changes:
        return False  # `run_local` checks afterwards what it has written
    elif not master.local_runs.start_nowait(job.launcher, master.recorder.witness(job)):
        return False
    count_local(master, job)
    return True


def start_at_once(master: Master, job: Job) -> bool:
    """Let the launcher execute a short command of which no result is stored.

    If one is, return False: `recall_or_run` starts the command if that cannot be used. Return False
    as `start_unrecalled` does, too.
    """
    return not may_be_recalled(master, job) and start_unrecalled(master, job)


def start_unrecalled(master: Master, job: Job) -> bool:
    """Let the launcher execute a short command for which no result can be used.

    Return False if the command is not short, no core is idle, or it goes to a worker to be traced.
    Nor does it run here if the launcher has been told something, which may still be on its way.
    """
    has_told = bool(job.warning) or job.output.has_shown
    return not has_told and not is_to_be_traced(master, job) and start_short(master, job)


def start_short(master: Master, job: Job) -> bool:
    """Let the launcher execute the command if it is known to be short and a core is idle.

    Return False otherwise. If more jobs run on workers than there are local slots, one core stays
    free for the master.
    """
    key, verdict = job.key, job.verdict
    if key is None or verdict is None or not master.short.is_short(key):
        return False
    if not may_run_as_short(verdict, job.request.invocation.env):
        return False
    started_s = trio.current_time()

    def on_end() -> None:
        master.short.record_local(key, trio.current_time() - started_s)

    are_many_remote = len(master.jobs) > master.local_runs.slots.count
    witness = master.recorder.witness(job)
    job.notes.is_short = True  # before the witness tells readers why the command runs here
    if not master.local_runs.start_if_idle(job.launcher, int(are_many_remote), on_end, witness):
        job.notes.is_short = False
        return False
    for counters in master.counters_of(job):
        counters.short += 1
    return True


async def run_local(master: Master, job: Job, derived: Collection[bytes] = ()) -> None:
    """Wait for a local slot, and let the launcher execute the command.

    `derived` are files that no remote result may change until the command has ended.
    """
    rule = job.verdict.rule if job.verdict else None
    count_local(master, job)
    job.phase = Phase.WAITING
    if rule is not None and rule.recurse:
        await job.launcher.replace(recurse=True)
        master.recorder.handed_over(job)
    else:
        release = _when_over(master, job, derived)
        try:
            if derived:
                await master.tree.finished()  # results that were judged before the files were held
            await master.local_runs.start(job.launcher, release, master.recorder.witness(job))
        except BaseException:
            release()
            raise


def _when_over(master: Master, job: Job, derived: Collection[bytes]) -> Callable[[], None]:
    """Hold the `derived` files, and return what to call when the job's local command has ended.

    If the watches may miss what the command has written outside the tree, that call requests a
    check, for which later jobs wait.
    """
    release = master.tree.hold(derived)
    if not (job.place and master.tree.misses_changes):
        return release

    def end() -> None:
        release()
        master.settled_check.request()

    return end
