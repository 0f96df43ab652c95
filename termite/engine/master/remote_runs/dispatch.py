"""Make the message that runs a job on a worker, at the current state of the files."""

import os

from termite.engine.decide.environment import encoded_words, environment_of
from termite.engine.fleet.lease import Lease
from termite.engine.fleet.pool import OUTDATED_CHANGES
from termite.engine.master.job import Job
from termite.engine.master.remote_runs.sent_contents import take_contents
from termite.engine.master.remote_runs.traced_jobs import trace_mode
from termite.engine.master.shared import Master
from termite.engine.model import Changeset, Command, Rule, TraceMode
from termite.engine.recall.look_up.fingerprints import STDIN_ENDED
from termite.engine.wire.protocol.messages import Run


def dispatch(master: Master, job: Job, command: Command, lease: Lease) -> Run | None:
    """Return the message that runs the job at the current state of the files.

    Return None if the mirror is so outdated that the job needs a new lease.
    """
    job.lease = lease
    argv, cwd = encoded_words(command.argv), os.fsencode(command.cwd)
    rule = job.verdict.rule if job.verdict else None
    env = job.identity.env if job.identity else _environment_words(master, rule, command)
    master.tree.show_named(argv, cwd, env)
    number = job.number = master.tree.drain()
    if _is_outdated(lease, master.tree.notes.turns, changesets := master.tree.changesets_since(lease.cursor)):
        return None
    return Run(
        job=job.id,
        number=number,
        changesets=changesets,
        argv=argv,
        exe=os.fsencode(command.exe),
        search=command.search,
        env=env,
        cwd=cwd,
        umask=job.request.umask,
        stdin=job.has_plain_stdin,
        merge=job.request.merge,
        network=rule.network if rule else False,
        timeout_s=rule.timeout_s if rule else 0.0,
        memory_bytes=rule.memory_bytes if rule else 0,
        stdin_file=job.request.stdin_file,
        stdin_closed=job.request.stdin_closed,
        stdin_ended=job.identity.stdin == STDIN_ENDED if job.identity else job.request.stdin_ended,
        contents=take_contents(master.tree, lease, number),
        limits=job.request.inherited.limits,
        nice=job.request.inherited.nice,
        ignored=job.request.inherited.ignored,
        terminal=job.terminal,
        trace=trace_mode(job, TraceMode.EXACT if job.is_stored else master.config.trace),
        names_known=len(lease.traced_names),
        fresh=master.tree.notes.fresh.paths,
    )


def _environment_words(master: Master, rule: Rule | None, command: Command) -> tuple[bytes, ...]:
    """Return the environment of a job, without the variables that it must not have."""
    left_out = master.config.env_exclude
    if rule is not None and rule.ignore_env:
        left_out = (*left_out, *rule.ignore_env)
    return environment_of(command).without(left_out).remote_words


def _is_outdated(lease: Lease, turns: int, changesets: tuple[Changeset, ...]) -> bool:
    """Return whether a new lease is needed, or cheaper than to send so many changes.

    It is needed if the mirror may take a directory with private entries for a public one.
    """
    if lease.known_turns is not None and lease.known_turns < turns:
        return True
    return sum(len(changeset.changes) for changeset in changesets) > OUTDATED_CHANGES
