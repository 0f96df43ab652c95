"""One job as its master knows it, from the launcher's first frame to the exit code."""

from dataclasses import dataclass, field

from termite.engine.decide.short_commands import CommandKey
from termite.engine.errors import Retryable, UserError
from termite.engine.fleet.lease import Lease
from termite.engine.launch.connection import Launcher
from termite.engine.launch.invocation import Asked
from termite.engine.launch.stdio import Output, Stdin
from termite.engine.model import Command, Phase, Verdict

ATTEMPTS = 3  # leases lost under one job; a job that kills two workers is not given a third (WORKERS)
WORKERS = 2


@dataclass(slots=True)
class Job:
    """From launcher to exit code."""

    id: int
    launcher: Launcher
    asked: Asked
    output: Output
    stdin: Stdin
    phase: Phase = Phase.DECIDING
    command: Command | None = None
    verdict: Verdict | None = None
    lease: Lease | None = None
    key: CommandKey | None = None  # None: it is not to be known again
    warning: UserError | None = None  # about the rules, for whoever builds
    bug: Exception | None = None  # of ours, from its beginning
    number: int = 0  # of the journal, as it was sent
    failures: list[Retryable] = field(default_factory=list)
    failed_on: set[str] = field(default_factory=set)

    def fail(self, worker: str, error: Retryable) -> None:
        """Note that an attempt on `worker` failed for a reason that is not the command's."""
        self.failures.append(error)
        self.failed_on.add(worker)

    def begin_again(self) -> None:
        """Before another attempt."""
        self.output.begin_again()
        self.stdin.begin_again()

    @property
    def may_be_tried(self) -> bool:
        """False where another worker should not be given to it."""
        return len(self.failed_on) < WORKERS and len(self.failures) < ATTEMPTS and self.stdin.can_begin_again


def new_job(number: int, launcher: Launcher, asked: Asked) -> Job:
    """A job at its beginning."""
    return Job(number, launcher, asked, Output(launcher), Stdin(launcher, asked))
