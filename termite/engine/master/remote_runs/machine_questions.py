"""Run a command that asks about its machine where it gets the answers of this one.

The command runs on this machine, or on a worker that says the same of itself.
"""

import os
import re
import stat

import msgspec

from termite.engine.decide.logic.questions import Question, answers_alike, questions_in
from termite.engine.errors import TermiteError
from termite.engine.master.job import Job
from termite.engine.master.shared import Master
from termite.engine.model import Command, MachineFacts
from termite.engine.paths import is_inside

MAX_FILES = 8  # of one command, those that other ones name included
MAX_BYTES = 64 * 1024  # of one file; options for the processor stand in front of a list of objects

_COMPILER = re.compile(
    r"(?<![\w.+-])(?:[\w.]+-)*(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+|gfortran|rustc|ic[cx]|icpx|ifx|nvcc?|nvc\+\+)"
    r"(?:-[\d.]+)?(?![\w.+-])"
)
_NAMED = re.compile(r"(?:^|(?<=[\s'\"]))@([^\s'\";|&<>()]+)")


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


def options_in_files(command: Command, root: str) -> str:
    """Return the text of the response files that a command of a compiler names, or "".

    Only files of the tree at `root` count. One that cannot be read has no options.
    """
    if "@" not in command.text or not _COMPILER.search(command.text):
        return ""
    found: dict[str, str] = {}
    waiting = _NAMED.findall(command.text)
    while waiting and len(found) < MAX_FILES:
        path = os.path.normpath(os.path.join(command.cwd, waiting.pop(0)))
        if path not in found and is_inside(path, root):
            found[path] = _read(path)
            waiting += _NAMED.findall(found[path])
    return "\n".join(found.values())


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # the compiler says so as well
        return ""
    try:
        return os.read(fd, MAX_BYTES).decode(errors="replace") if stat.S_ISREG(os.fstat(fd).st_mode) else ""
    except OSError:  # the same
        return ""
    finally:
        os.close(fd)
