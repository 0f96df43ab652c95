"""Decide which failed jobs run again because an input has changed.

A build that does not name all inputs of a command may start the command too early. Without termite,
nobody can tell such a failure from another one. Here the trace and the journal tell: an input of
the failed command was made while it ran. Most commands that fail do so rightly, and at once, such
as the checks of a configure script. They cost a look at the journal, and never run twice.
"""

import enum
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass

from termite.engine.errors import Reason, Retryable
from termite.engine.history.logic.job_record import INPUTS_NAMED, LateInput
from termite.engine.history.logic.missing_edges import late_inputs_text
from termite.engine.history.logic.recorded_text import recorded_line
from termite.engine.master.job import Job
from termite.engine.master.reuse.run_observer import RunObserver
from termite.engine.master.shared import Master
from termite.engine.model import Exit
from termite.engine.paths import is_within
from termite.engine.recall.logic.changed_inputs import ChangedInput
from termite.engine.tree.logic.times import Timing
from termite.engine.wire.protocol.messages import Ran

LONGEST_S = 30.0  # of a command that runs again: nobody shall wait twice for a long one
# Somebody ends a command by these. Others, such as SIGSEGV, may end one that has read half a file.
STOPPING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGTERM})


class Objection(enum.StrEnum):
    """A reason why a job does not run again, whatever has become of its inputs."""

    PASSED = "passed"
    NOT_STARTED = "not-started"  # there is no such program on the worker; the command runs here
    STOPPED = "stopped"  # by a person, or by its time limit
    CANCELLED = "cancelled"  # nobody waits for it any more
    UNTRACED = "untraced"  # nobody knows its inputs
    TOO_LONG = "too-long"
    NETWORK = "network"  # a server may have noticed it
    SHOWN = "shown"  # its output cannot be taken back
    STDIN = "stdin"  # its input cannot be given again
    RERAN = "reran"  # once is enough


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """A run of a command on a worker that has ended, with what matters for another one."""

    exit: Exit
    took_s: float = 0.0
    is_started: bool = True
    has_timed_out: bool = False
    is_cancelled: bool = False
    is_traced: bool = True
    had_network: bool = False
    has_shown: bool = False
    can_rewind: bool = True
    has_rerun: bool = False

    def objection(self) -> Objection | None:
        """Return why the command must not run again, or None if it may if an input has changed."""
        found = (
            (Objection.PASSED, self.exit == Exit(0)),
            (Objection.NOT_STARTED, not self.is_started),
            (Objection.STOPPED, self.has_timed_out or self.exit.signal in STOPPING),
            (Objection.CANCELLED, self.is_cancelled),
            (Objection.UNTRACED, not self.is_traced),
            (Objection.TOO_LONG, self.took_s >= LONGEST_S),
            (Objection.NETWORK, self.had_network),
            (Objection.SHOWN, self.has_shown),
            (Objection.STDIN, not self.can_rewind),
            (Objection.RERAN, self.has_rerun),
        )
        return next((objection for objection, holds in found if holds), None)


def judged_run(job: Job, ran: Ran) -> JudgedRun:
    """Return what matters of the job's present run, which ended with `ran`."""
    return JudgedRun(
        exit=ran.exit,
        took_s=(ran.ended_ns - ran.started_ns) / 1e9,
        is_started=not ran.exec_errno,
        has_timed_out=ran.timed_out,
        is_cancelled=job.launcher.gone is not None,
        is_traced=ran.trace is not None and not ran.trace.gaps,
        had_network=job.may_have_used_network,
        has_shown=job.output.has_shown,
        can_rewind=job.stdin.can_rewind,
        has_rerun=bool(job.notes.late_inputs),
    )


async def check_failure(master: Master, job: Job, ran: Ran, observer: RunObserver, timing: Timing) -> None:
    """Raise Retryable if a command that has failed runs again, because an input has changed.

    Then nothing of the run may be published, and its output is dropped. Only changes count that
    were made before the end of the run. Nobody waits for a command that is about to make an input.
    """
    if judged_run(job, ran).objection() is not None or not observer.sees_changes():
        return
    assert job.lease is not None, "it ran on a worker"
    observed = await observer.observe(ran, job.lease.traced_names, timing)
    if not observed.changed or observed.dependencies is None:
        return
    changed = observer.changed_inputs(observed.dependencies.path_set)
    # Facts of the tree may have been waited for. Meanwhile held output may have been shown.
    if not changed or judged_run(job, ran).objection() is not None:
        return
    job.output.drop()
    found = recorded_inputs(((one, _author(master, one)) for one in changed), master.writable_root)
    job.notes.late_inputs = found
    raise Retryable(Reason.INPUT_CHANGED, late_inputs_text(found))


def _author(master: Master, changed: ChangedInput) -> int:
    """Return the job whose result an input is, or 0 if something else made it."""
    number = master.tree.result_number(changed.path) if changed.is_there else 0
    return master.authors.job_of(number) if number >= changed.number else 0


def recorded_inputs(changed: Iterable[tuple[ChangedInput, int]], writable_root: bytes) -> tuple[LateInput, ...]:
    """Return the first changed inputs, each with the job that made it, as a record has them."""
    found = []
    for (path, is_there, _), job in changed:
        below = path[len(writable_root) :].lstrip(b"/") if is_within(path, writable_root) else b"/" + path
        found.append(LateInput(recorded_line(os.fsdecode(below)) or ".", is_there, job))
        if len(found) == INPUTS_NAMED:
            break
    return tuple(found)
