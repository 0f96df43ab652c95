"""One job from top to bottom: `run_at_once` and then `run_job`.

The functions below them are its steps, in the order in which they happen.
"""

import functools
import logging
import os

import trio

from termite.engine.decide.environment import environment_of
from termite.engine.decide.logic.commands import is_no_op
from termite.engine.decide.logic.local_policy import is_local_forbidden, local_policy_warning
from termite.engine.decide.short_commands import CommandKey, key_of
from termite.engine.errors import FsError, Outdated, Reason, Retryable, UserError
from termite.engine.fleet.lease import Lease
from termite.engine.fleet.pool import OUTDATED_CHANGES, NoWorker
from termite.engine.launch.connection import Launcher, LauncherGone
from termite.engine.launch.invocation import Asked
from termite.engine.launch.listener import RestOfJob
from termite.engine.launch.vantage import difference
from termite.engine.master.job import Job, new_job
from termite.engine.master.results import fetched
from termite.engine.master.shared import Master
from termite.engine.model import Changeset, Command, Exit, Phase
from termite.engine.paths import is_within, tree_path
from termite.engine.tree.logic.times import Timing
from termite.engine.wire.protocol.foreign_text import printable
from termite.engine.wire.protocol.messages import Ran, Run

NOWHERE_TO_RUN = 103
CANNOT_RUN_AGAIN = 101
# Bytes, of one file and of all: what is written here goes along with the news of it. A job waits until it is there, and
# otherwise asks for what it needs.
NEWS_NEARBY = (64 * 1024, 128 * 1024)
NEWS_FAR_AWAY = (4 * 1024, 16 * 1024)
QUIET_S = 10.0  # without a job: the next one is another piece of work, also where only launchers say so
NEWS_FILES = 256  # are read for that; each holds the master for 40 us

log = logging.getLogger(__name__)


class JobRunner:
    """Runs the jobs of a master's launchers."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._last_job = 0

    def begin(self, launcher: Launcher, asked: Asked) -> RestOfJob | None:
        """Begin a job for `launcher`. Return its remaining steps, or None if the job is done already."""
        master = self._master
        self._last_job += 1
        now_s = trio.current_time()
        if now_s - master.last_busy_s > QUIET_S and not master.jobs:
            master.notices.clear()
        master.last_busy_s = now_s
        job = new_job(self._last_job, launcher, asked)
        try:
            if run_at_once(master, job):
                return None
        except LauncherGone:
            raise
        except Exception as error:  # one job: `_run` reports it
            job.bug = error
        return functools.partial(self._run, job)

    async def _run(self, job: Job) -> Exit | None:
        """Run the remaining steps of the job. Return None if the launcher runs the command itself."""
        master = self._master
        master.jobs[job.id] = job
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            if job.bug is not None:
                raise job.bug
            return await run_job(master, job)
        except LauncherGone:
            raise
        except Exception as error:  # one job: whatever is wrong with us, the build goes on
            log.exception("job-failed job=%d", job.id)
            return await fall_back(master, job, Reason.INTERNAL_ERROR, repr(error))
        finally:
            del master.jobs[job.id]
            master.last_busy_s = trio.current_time()


def run_at_once(master: Master, job: Job) -> bool:
    """The beginning of a job: what it is, and where it runs. True: that was all, it is answered, or runs here."""
    command = job.command = master.plugins.parse(job.asked.invocation)
    if is_no_op(command):
        master.counters.answered += 1
        job.launcher.finish_at_once(Exit(0))
        return True
    job.warning = master.rule_file.refresh()
    verdict = job.verdict = master.decide(command)
    if master.short.is_on and not verdict.rule:
        job.key = key_of(command)
    if job.warning or job.launcher.has_said_more:
        return False
    return start_here(master, job) if verdict.local else start_short(master, job)


async def run_job(master: Master, job: Job) -> Exit | None:
    """The rest of a job, to the exit code that its launcher gets: DESIGN, section 5."""
    assert job.command is not None and job.verdict is not None, "it has begun"
    if job.warning:
        await job.launcher.notice(f"termite: {job.warning}; the last good rules stay in force")
    warning = local_policy_warning(job.asked.invocation.env)
    if warning and master.notices.pick("rules", [os.fsencode(warning)]):
        await job.launcher.notice(f"termite: {warning}")
    if job.verdict.local:
        await run_here(master, job)
        return None
    if elsewhere := difference(master.vantage, job.asked.vantage, job.asked.invocation.cwd):
        # Only if it would leave this machine: here it sees its own files and users anyway. Once in each build.
        is_news = bool(master.notices.pick(elsewhere, [b"elsewhere"]))
        return await fall_back(master, job, elsewhere, "", quiet=not is_news)
    job.phase = Phase.WAITING
    try:
        await master.settled_check.wait()
    except UserError as error:
        return await fall_back(master, job, Reason.SETTLED_UNREADABLE, error.message)
    while job.may_be_tried:
        job.phase = Phase.WAITING
        try:
            async with master.pool.slot(job.failed_on) as lease:
                message = dispatch(master, job, job.command, lease)
                if message is None:
                    master.pool.retire(lease)
                    continue
                dispatched_ns, dispatched_s = master.tree.now_ns(), trio.current_time()
                ran = await run_there(master, job, lease, message)
                timing = Timing(dispatched_ns, ran.started_ns, ran.ended_ns, lease.offset_ns, message.number)
                conflicts = await bring_home(master, job, lease, ran, timing)
            if job.key:
                learn(master, job.key, ran, trio.current_time() - dispatched_s)
            if ran.exec_errno:
                return await fall_back(master, job, Reason.EXEC_FAILED, os.strerror(ran.exec_errno), quiet=True)
            job.number = 0  # nothing of the journal is needed any more, however long its launcher takes
            await job.launcher.stop_reading()
            await tell_what_happened(master, job, ran, conflicts)
            return ran.exit
        except NoWorker as error:
            return await fall_back(master, job, Reason.NO_WORKER, str(error))
        except FsError as error:
            return await fall_back(master, job, Reason.NOT_PUBLISHED, os.strerror(error.errno))
        except Retryable as error:
            if error.reason is Reason.NOT_AT_REST:  # no worker is to blame, and none would do better
                return await fall_back(master, job, error.reason, error.detail)
            blame(master, job, error)
    return await fall_back(master, job, job.failures[-1].reason, job.failures[-1].detail)


def dispatch(master: Master, job: Job, command: Command, lease: Lease) -> Run | None:
    """The job as its mirror is asked to run it, at the state of the files now. None: the mirror is too far behind."""
    job.lease = lease
    number = job.number = master.tree.drain()
    changesets = master.tree.changesets_since(lease.cursor)
    if _is_outdated(changesets):
        return None
    news = NEWS_NEARBY if lease.is_near else NEWS_FAR_AWAY
    contents = master.tree.contents_since(lease.sent_number, *news, NEWS_FILES)
    lease.sent_number = number
    rule = job.verdict.rule if job.verdict else None
    return Run(
        job=job.id,
        number=number,
        changesets=changesets,
        argv=tuple(os.fsencode(word) for word in command.argv),
        exe=os.fsencode(command.exe),
        search=command.search,
        env=environment_of(command).remote_words,
        cwd=os.fsencode(command.cwd),
        umask=job.asked.umask,
        stdin=job.asked.has_stdin,
        merge=job.asked.merge,
        network=rule.network if rule else False,
        timeout_s=rule.timeout_s if rule else 0.0,
        memory_bytes=rule.memory_bytes if rule else 0,
        stdin_file=job.asked.stdin_file,
        stdin_closed=job.asked.stdin_closed,
        stdin_ended=job.asked.stdin_ended,
        contents=contents,
    )


async def run_there(master: Master, job: Job, lease: Lease, message: Run) -> Ran:
    """The command on a worker, its output forwarded as it comes."""
    job.phase = Phase.RUNNING
    job.begin_again()
    ran = await lease.run(message, job.output.take)
    master.pool.succeeded(lease)
    master.is_without_worker = False
    return ran


async def bring_home(master: Master, job: Job, lease: Lease, ran: Ran, timing: Timing) -> tuple[bytes, ...]:
    """The results on the user's disk; the paths that another job had written differently meanwhile."""
    if not ran.changes:
        return ()
    job.phase = Phase.FETCHING
    async with fetched(lease, ran, master.tree) as contents:
        home = await master.tree.bring_home(ran.changes, contents, timing)
    return home.conflicts


def learn(master: Master, key: CommandKey, ran: Ran, total_s: float) -> None:
    """What the command took, for the next time. One that may do something else here stays with the workers: it writes
    outside the tree, reads from a pipe, or was killed. To end with an error is what many a makefile asks its shell for.
    What could not be started there took nothing, and its way says nothing.
    """
    if ran.exec_errno or ran.exit.signal or ran.dropped or ran.stdin_taken:
        master.short.forget(key)
        return
    took_s = (ran.ended_ns - ran.started_ns) / 1e9
    master.short.record_remote(key, took_s, max(total_s - took_s, 0.0))


def start_here(master: Master, job: Job) -> bool:
    """As a rule says. One that starts jobs itself holds no slot; any other one takes a core. False: it has to wait."""
    rule = job.verdict.rule if job.verdict else None
    if rule is not None and rule.recurse:
        job.launcher.replace_at_once(recurse=True)
    elif not master.here.start_at_once(job.launcher):
        return False
    master.counters.count_local(job.verdict)
    return True


def start_short(master: Master, job: Job) -> bool:
    """Run it here if its way to a worker is not worth it, and a core here has nothing to do. False: it is not done.

    Where many jobs run elsewhere, one core is the master's own.
    """
    key = job.key
    if key is None or not master.short.is_short(key) or is_local_forbidden(job.asked.invocation.env):
        return False
    started_s = trio.current_time()

    def on_end() -> None:
        master.short.record_local(key, trio.current_time() - started_s)

    are_many_elsewhere = len(master.jobs) > master.here.slots.count
    if not master.here.start_spare(job.launcher, int(are_many_elsewhere), on_end):
        return False
    master.counters.short += 1
    return True


def blame(master: Master, job: Job, error: Retryable) -> None:
    """An attempt came to nothing: note it against the worker, so that the next one is elsewhere."""
    assert job.lease is not None, "only a lease can fail"
    if isinstance(error, Outdated):
        job.failures.append(error)
        log.info("job-outdated job=%d detail=%r reason=%s", job.id, error.detail, error.reason)
        return
    job.fail(job.lease.worker, error)
    master.pool.failed(job.lease, error)
    master.counters.retries[error.reason] += 1
    log.warning("job-retried job=%d lease=%s detail=%r reason=%s", job.id, job.lease.worker, error.detail, error.reason)


async def run_here(master: Master, job: Job) -> None:
    """Here, when it is its turn; after whatever was said to the launcher already."""
    rule = job.verdict.rule if job.verdict else None
    master.counters.count_local(job.verdict)
    job.phase = Phase.WAITING
    if rule is not None and rule.recurse:
        await job.launcher.replace(recurse=True)
    else:
        await master.here.start(job.launcher)


async def fall_back(master: Master, job: Job, reason: Reason, detail: str, *, quiet: bool = False) -> Exit | None:
    """Run the command on this machine because no worker can, or return the exit code that says why it cannot run.

    It is run only if that gives what the command would have given at first. `quiet`: print no notice.
    """
    master.counters.fallbacks[reason] += 1
    log.warning("job-fell-back job=%d detail=%r reason=%s", job.id, detail, reason)
    text = f"{reason.words}: {detail}" if detail else reason.words
    await job.launcher.stop_reading()
    if job.stdin.is_read:
        await job.launcher.notice(f"termite: {text}; the command has read its input and cannot be run again")
        master.counters.failed += 1
        return Exit(CANNOT_RUN_AGAIN)
    if is_local_forbidden(job.asked.invocation.env):
        await job.launcher.notice(f"termite: {text}; TERMITE_LOCAL=never forbids to run it on this machine")
        master.counters.failed += 1
        return Exit(NOWHERE_TO_RUN)
    if reason is Reason.NO_WORKER:
        # Said once, until there was a worker again: a build of a thousand jobs needs no thousand lines.
        quiet, master.is_without_worker = master.is_without_worker, True
    if not quiet:
        again = ", again from its beginning" if job.output.is_told else ""
        await job.launcher.notice(f"termite: {text}; running the command on this machine{again}")
    await run_here(master, job)
    return None


async def tell_what_happened(master: Master, job: Job, ran: Ran, conflicts: tuple[bytes, ...]) -> None:
    """Count the job; what a user should know of its results goes to the launcher."""
    counters = master.counters
    counters.remote += 1
    counters.fuse_requests += ran.usage.requests
    counters.conflicts += len(conflicts)
    if lost := job.stdin.finish(ran.stdin_offset, ran.stdin_taken):
        log.info("job-stdin-left job=%d bytes=%d", job.id, lost)
    counters.count_paths("written by two jobs at once", map(_absolute, conflicts))
    for path in conflicts:
        await job.launcher.notice(f"termite: another job wrote {_absolute(path)} at the same time; this one's stays")
    if ran.dropped:
        await tell_what_stayed_there(master, job, ran.dropped)
    if ran.timed_out:
        await job.launcher.notice("termite: killed after the time that its rule allows")


async def tell_what_stayed_there(master: Master, job: Job, dropped: tuple[bytes, ...]) -> None:
    """Count and tell what does not come home: what is outside the tree, and in the tree sockets."""
    root = tree_path(master.config.socket.parent)
    inside = {path for path in dropped if path != root and is_within(path, root)}
    sockets = tuple(path for path in dropped if path in inside)
    outside = tuple(path for path in dropped if path not in inside)
    counters = master.counters
    counters.dropped_writes += len(outside)
    counters.sockets_left += len(sockets)
    counters.count_paths("written outside the tree, dropped", map(_absolute, outside))
    counters.count_paths("socket, stayed on its worker", map(_absolute, sockets))
    for paths, what in ((outside, "dropped what it wrote outside the tree"), (sockets, "a socket stays on its worker")):
        if named := master.notices.pick(what, paths):
            names = ", ".join(map(_absolute, named))
            rest = f" and {len(paths) - len(named)} more" if len(paths) > len(named) else ""
            last = (
                "; others near it are only counted" if any(master.notices.is_last(what, path) for path in named) else ""
            )
            await job.launcher.notice(f"termite: {what}: {names}{rest} (with a Local rule it runs here{last})")


def _absolute(path: bytes) -> str:
    """As the user knows it."""
    return "/" + printable(os.fsdecode(path))


def _is_outdated(changesets: tuple[Changeset, ...]) -> bool:
    return sum(len(changeset.changes) for changeset in changesets) > OUTDATED_CHANGES
