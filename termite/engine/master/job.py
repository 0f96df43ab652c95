"""Hold the state of one job, from the launcher's first frame to the exit code.

A job may run on several leases, one after another; `failures` and `failed_on` count its attempts.
"""

import contextlib
from dataclasses import dataclass, field

import msgspec
import trio

from termite.engine.decide.command_memory import CommandKey
from termite.engine.errors import Retryable, TermiteError, UserError, first_error
from termite.engine.fleet.lease import Lease
from termite.engine.launch.connection import Launcher
from termite.engine.launch.invocation import JobRequest
from termite.engine.launch.job_stdin import JobStdin
from termite.engine.launch.output import HeldOutputs, JobOutput
from termite.engine.master.recording.job_notes import JobNotes
from termite.engine.model import Command, Phase, TerminalWish, Verdict, WindowSize
from termite.engine.recall.look_up.fingerprints import CommandIdentity
from termite.engine.tree.publishing.publication import Ticket
from termite.engine.wire.protocol.messages import Ran, Run, UseTerminal

MAX_ATTEMPTS = 3  # failures of any kind, conflicts included
NEVER = trio.Event()  # of jobs without a terminal, which need no event of their own
MAX_WORKERS = 2  # a job that makes two workers fail does not get a third one


@dataclass(slots=True)
class Job:
    """A job is one command of a launcher.

    `id` is unique in this master. `number` is the number of the journal that was sent to the
    mirror, or None if it is not needed. Fields that are None are not known yet, unless a comment
    says otherwise.
    """

    id: int
    launcher: Launcher
    request: JobRequest
    output: JobOutput
    stdin: JobStdin
    phase: Phase = Phase.DECIDING
    command: Command | None = None
    verdict: Verdict | None = None
    lease: Lease | None = None
    key: CommandKey | None = None  # None: its run time is not recorded
    warning: UserError | None = None  # about the rule file, for the user; None: there is none
    bug: Exception | None = None  # of `run_at_once`; `run_job` raises it again
    ticket: Ticket | None = None  # None: nothing was published yet
    place: str = ""  # the place outside the tree that makes it run here; "": none does
    number: int | None = None
    has_met_others: bool = False  # True if others changed the files that it changed in place, in any attempt
    is_executed: bool = False  # True if a worker may have started the command in any attempt
    terminal: TerminalWish | None = None  # with the present size of the window; None: the job has none
    resized: trio.Event = NEVER
    posted: trio.Event = NEVER  # of a job with a terminal: its Run is before whatever is sent now
    identity: CommandIdentity | None = None  # None: no result is recalled for it
    weak: bytes = b""  # the weak fingerprint of the identity
    is_stored: bool = False  # True if its result is to be stored, so that it must be traced
    is_traced_though_short: bool = False  # True if it runs on a worker, so that its result can be stored
    is_disturbed: bool = False  # True if its trace has changed what it did, in any attempt
    plugin: str = ""  # that has read the command; "": none
    notes: JobNotes = field(default_factory=JobNotes)
    failures: list[Retryable] = field(default_factory=list)
    failed_on: set[str] = field(default_factory=set)

    def fail(self, worker: str, error: Retryable) -> None:
        """Note that an attempt on `worker` failed, and that the command is not to blame."""
        self.failures.append(error)
        self.failed_on.add(worker)

    def rewind(self) -> None:
        """Prepare for an attempt, which reads and writes everything from the beginning."""
        self.launcher.resume_reading()  # an earlier attempt may have failed while it was published
        self.output.rewind()
        self.stdin.rewind()

    @property
    def can_retry(self) -> bool:
        """True if the job may still run on a worker; False if it must fall back."""
        return len(self.failed_on) < MAX_WORKERS and len(self.failures) < MAX_ATTEMPTS and self.stdin.can_rewind

    @property
    def has_plain_stdin(self) -> bool:
        """True if the command has a standard input, and it is no terminal of the job."""
        return self.request.has_stdin and not (self.terminal and self.terminal.stdin)

    def resize(self, size: WindowSize) -> None:
        """Note the new size of the launcher's window, and pass it on if the job runs."""
        if self.terminal is not None:
            self.terminal = msgspec.structs.replace(self.terminal, size=size)
            self.resized.set()

    @property
    def may_have_used_network(self) -> bool:
        """True if the command had the network in any attempt: a second run may be noticed."""
        rule = self.verdict.rule if self.verdict else None
        return self.is_executed and rule is not None and rule.network


def new_job(number: int, launcher: Launcher, request: JobRequest, held_outputs: HeldOutputs) -> Job:
    """Return a new job with the id `number`."""
    output = JobOutput(launcher, request, held_outputs)
    job = Job(number, launcher, request, output, JobStdin(launcher, request))
    if (terminal := request.terminal) is not None:
        job.terminal, job.resized, job.posted = terminal, trio.Event(), trio.Event()
        launcher.on_window = job.resize
    return job


async def run_at_terminal(job: Job, lease: Lease, message: Run) -> Ran:
    """Run a command as `Lease.run` does, and pass the sizes of the launcher's window on to it.

    A size that came before the command would be dropped: the worker does not know it yet.
    """
    if job.posted.is_set():  # by an earlier attempt
        job.posted = trio.Event()

    async def follow() -> None:
        await job.posted.wait()
        while job.terminal is not None:
            await job.resized.wait()
            job.resized = trio.Event()
            with contextlib.suppress(TermiteError):  # the job then fails as well
                await lease.use_terminal(UseTerminal(job.id, job.terminal.size))

    with first_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            ran = await lease.run(message, job.output.forward, job.posted.set)
            nursery.cancel_scope.cancel()
    return ran
