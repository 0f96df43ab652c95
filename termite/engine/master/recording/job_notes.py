"""Hold what a master notes of one job for its record, besides what `Job` has itself."""

from collections.abc import Sequence
from dataclasses import dataclass

from termite.engine.errors import Reason
from termite.engine.history.logic.job_record import NOT_KNOWN, FailedAttempt, LateInput, MissDetail, Where
from termite.engine.master.recording.build_notes import BuildNotes
from termite.engine.model import Change, Exit, PackedTrace, Usage

NO_PROCESS = -1


@dataclass(slots=True)
class JobNotes:
    """The notes of a job. Times are seconds since the epoch, 0.0 means "not yet".

    * `where` is a worker from the start of an attempt there on, and `is_published` says that its
      result counts.
    * `sent_s` to `usage` and `changes` to `trace` are those of the present attempt.
    * `reason` and `detail` say why it fell back or was refused; None: it was not.
    * `recalled` names the job whose result it got, "": it got none. `miss` is the value of the
      `MissCause`; "": nobody has looked for one. `missed` has what differs, or None.
    * `traffic` has the bytes sent and received, and the requests.
    * `late_inputs` are those for which a failed command runs again, in whatever attempt.
    * `text` is the recorded text, as soon as somebody has needed it; "" before.
    * `process` is the pidfd of a command that has ended here, which the keeper asks and closes.
    """

    build: BuildNotes | None = None
    queued_s: float = 0.0
    where: Where = Where.UNDECIDED
    worker: str = ""
    slot: int = NOT_KNOWN
    sent_s: float = 0.0
    started_s: float = 0.0
    ended_s: float = 0.0
    home_s: float = 0.0
    exit: Exit | None = None
    usage: Usage | None = None
    changes: Sequence[Change] = ()
    dropped: Sequence[bytes] = ()
    timed_out: bool = False
    trace: PackedTrace | None = None
    is_published: bool = False
    conflicts: int = 0
    is_short: bool = False
    is_forbidden: bool = False
    is_cancelled: bool = False
    recalled: str = ""
    miss: str = ""
    missed: MissDetail | None = None
    reason: Reason | None = None
    detail: str = ""
    traffic: tuple[int, int, int] = (0, 0, 0)
    attempts: tuple[FailedAttempt, ...] = ()
    late_inputs: tuple[LateInput, ...] = ()
    text: str = ""
    process: int = NO_PROCESS

    def begin_attempt(self, worker: str, slot: int, now_s: float) -> None:
        """Note the start of an attempt on a worker, or here if `worker` is ""."""
        self.worker, self.slot, self.sent_s = worker, slot, now_s
        self.where = Where.WORKER if worker else Where.HERE
        if self.attempts:
            self.started_s = self.ended_s = 0.0
            self.exit = self.usage = None
            self.changes = self.dropped = ()
            self.timed_out, self.trace = False, None

    def fail_attempt(self, reason: Reason, detail: str, now_s: float) -> FailedAttempt:
        """Note that the present attempt has failed, and return it."""
        attempt = FailedAttempt(self.worker, reason.value, detail, now_s)
        self.attempts = (*self.attempts, attempt)
        self.sent_s = 0.0
        self.where = Where.UNDECIDED
        return attempt
