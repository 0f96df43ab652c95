"""Run a command that asks about its machine where it gets the answers of this one.

The command runs on this machine, or on a worker that says the same of itself.
"""

import os

import msgspec

from termite.engine.decide.logic.questions import Question, answers_alike, questions_in
from termite.engine.errors import TermiteError
from termite.engine.master.job import Job
from termite.engine.master.remote_runs.response_files import options_in_files
from termite.engine.master.shared import Master
from termite.engine.model import Command, MachineFacts


class UnlikeWorker(TermiteError):
    """An error for the master: the worker would give the command other answers."""


class Wanted(msgspec.Struct, frozen=True):
    """The questions of a command, and the machine whose answers it must get."""

    questions: frozenset[Question]
    machine: MachineFacts

    def check(self, machine: MachineFacts) -> None:
        """Raise UnlikeWorker if this machine would answer otherwise."""
        if not answers_alike(self.questions, self.machine, machine):
            raise UnlikeWorker("asks about the machine")


def wanted_by(master: Master, job: Job, command: Command) -> Wanted:
    """Return what the command asks for. A command that asks nothing costs a few microseconds."""
    questions = questions_in(command.text)
    if "@" in command.text and (options := options_in_files(command, master.root)):
        questions |= questions_in(options)
    machine = master.machine
    if Question.CORES in questions:
        machine = msgspec.structs.replace(machine, cores=_cores_of(job.launcher.pid))
    return Wanted(questions, machine)


def unlike_workers(master: Master, wanted: Wanted) -> frozenset[str]:
    """Return the names of the workers that would answer otherwise.

    Raise UnlikeWorker if no other worker is known.
    """
    if not wanted.questions:
        return frozenset()
    workers = master.pool.fleet.workers
    unlike = [w.name for w in workers if not answers_alike(wanted.questions, wanted.machine, w.machine)]
    if unlike and len(unlike) == len(workers):
        raise UnlikeWorker("asks about the machine")
    return frozenset(unlike)


def _cores_of(pid: int) -> int:
    """Return how many processors a process may use, or 0 if that is not known.

    taskset(1) limits them.
    """
    try:
        return len(os.sched_getaffinity(pid)) if pid else 0
    except OSError:
        return 0
