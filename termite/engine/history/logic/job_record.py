"""The records of jobs and builds: one schema for the files, the live stream and every view.

docs/develop/records.md explains each field. All times are seconds since the epoch by the master's
clock, and 0.0 means "not yet" or "never". A new field goes to the end of its struct and has a
default; then old files stay readable. Any other change of a struct needs a new SCHEMA.
"""

import enum

import msgspec

from termite.engine.model import How

SCHEMA = 1
NOT_KNOWN = -1  # as an exit code or a slot

OUTPUT_BYTES = 2048  # of a job's output: its end
TEXT_CHARACTERS = 8192  # of a command's text: its beginning
FILES_NAMED = 64  # of the files that a job wrote, and of those that were dropped
FILES_BYTES = 8192  # of all these names
INPUTS_NAMED = 16  # of the inputs that had changed when an attempt had failed


class Where(enum.StrEnum):
    """The place where a job ran."""

    UNDECIDED = "undecided"  # only in the live stream
    WORKER = "worker"
    HERE = "here"  # on the master's machine
    CACHE = "cache"  # nothing ran: the result was known
    ANSWERED = "answered"  # nothing ran: the command does nothing, as `:` does
    NOWHERE = "nowhere"  # it was cancelled, or could not be run


class Why(enum.StrEnum):
    """The kind of cause for which a job ran where it did."""

    UNDECIDED = "undecided"  # only in the live stream
    NO_RULE = "no-rule"  # no rule, no tie: a worker
    RULE = "rule"  # of the user or of a plugin
    SHORT = "short"
    TIE = "tie"  # something ties it to the master's machine, known beforehand
    FALL_BACK = "fall-back"  # no worker could run it, or its result was refused
    NO_OP = "no-op"
    CACHED = "cached"
    FORBIDDEN = "forbidden"  # it could not be run: not here, not again
    CANCELLED = "cancelled"  # by its launcher
    SWITCHED = "switched"  # the user's TERMITE_LOCAL decided


class Stage(enum.StrEnum):
    """The stage that a job has reached, by its times."""

    QUEUED = "queued"
    SENT = "sent"  # it runs, or is about to: its start is known only at its end
    ENDED = "ended"  # the command has ended, and its results come home
    HOME = "home"


class Cause(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The cause for which a job ran where it did.

    * `reason` is the value of a `Reason` for TIE, FALL_BACK and FORBIDDEN, else "".
    * `detail` is for people: a place, a program, the text of an error. It may be "".
    * `regexp` and `source` are those of the rule that matched, even if the rule did not decide the
      place (a rule with Network, say). Both are "" if no rule matched.
    """

    kind: Why = Why.UNDECIDED
    reason: str = ""
    detail: str = ""
    regexp: str = ""
    source: str = ""


class FailedAttempt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An attempt that failed, so that the job ran again. `reason` is the value of a `Reason`."""

    worker: str
    reason: str
    detail: str = ""
    at_s: float = 0.0


class LateInput(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An input of a failed attempt that had changed when the attempt was over.

    * `path` is below the tree, or absolute.
    * `is_there`: the input was made or written, otherwise it was removed.
    * `job` is the job whose result it is, or 0 if it is no result of a job on a worker.
    """

    path: str
    is_there: bool = True
    job: int = 0


class MissDetail(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The change since the last run of a job because of which no stored result was used.

    `kind` is the value of a `DifferenceKind`. `name` is a path, a variable or a word.
    """

    kind: str = ""
    name: str = ""
    old: str = ""
    new: str = ""


class JobRecord(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """The record of one job, finished or (in the live stream) not.

    `id` is unique in a tree, `build` is the id of a `BuildRecord`. Paths in `files` are below the
    tree. See docs/develop/records.md for every field.
    """

    id: int
    build: int
    text: str
    cwd: str
    text_length: int = 0
    how: How = How.DIRECT
    tool: str = ""
    plugin: str = ""
    where: Where = Where.UNDECIDED
    cause: Cause = Cause()
    worker: str = ""
    slot: int = NOT_KNOWN
    queued_s: float = 0.0
    sent_s: float = 0.0
    started_s: float = 0.0
    ended_s: float = 0.0
    home_s: float = 0.0
    exit_code: int = NOT_KNOWN
    signal: int = 0
    timed_out: bool = False
    user_s: float = 0.0
    system_s: float = 0.0
    peak_memory_bytes: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    fuse_requests: int = 0
    wire_requests: int = 0
    files: tuple[bytes, ...] = ()
    file_count: int = 0
    dropped: tuple[bytes, ...] = ()
    dropped_count: int = 0
    attempts: tuple[FailedAttempt, ...] = ()
    ran_again: bool = False
    output: bytes = b""
    output_bytes: int = 0
    is_output_kept: bool = True
    pid: int = 0
    trace_calls: int = 0
    trace_paths: int = 0
    trace_gaps: tuple[str, ...] = ()
    late_inputs: tuple[LateInput, ...] = ()
    miss: str = ""
    missed: MissDetail | None = None

    @property
    def stage(self) -> Stage:
        """The stage that the job has reached."""
        if self.home_s:
            return Stage.HOME
        if self.ended_s:
            return Stage.ENDED
        return Stage.SENT if self.sent_s else Stage.QUEUED

    @property
    def has_failed(self) -> bool:
        """True if the command is known to have failed, or could not be run."""
        return self.exit_code > 0 or self.signal > 0


class BuildCounts(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """The counts of a build's jobs. `fallbacks` and `tied` are by the value of a `Reason`.

    `failed` counts jobs that could not be run, `nonzero` commands that ran and failed.
    """

    remote: int = 0
    local: int = 0
    short: int = 0
    answered: int = 0
    cached: int = 0
    failed: int = 0
    nonzero: int = 0
    retried: int = 0
    conflicts: int = 0
    dropped_writes: int = 0
    fallbacks: dict[str, int] = {}
    tied: dict[str, int] = {}


class MasterMark(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The mark of a master, by which others find out that it has ended.

    It has the host's name and its boot id, and the number of the namespace of process ids. `start`
    is when the process was started, in ticks since the boot.
    """

    host: str
    boot: str
    pids: int
    pid: int
    start: int


class BuildRecord(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """The record of one build: the jobs of one front end, or of a time without one.

    A build is written twice, at its start and at its end; the later one counts. `ended_s` is 0.0
    if it runs. `is_cut_off`: its master was killed, and `ended_s` is the time of its last record.
    `front_end` is "" for commands that came without one. `master` is None if nobody knows it.
    """

    id: int
    started_s: float
    ended_s: float = 0.0
    front_end: str = ""
    text: str = ""
    cwd: str = ""
    tree: str = ""
    version: str = ""
    pid: int = 0
    exit_code: int = NOT_KNOWN
    signal: int = 0
    jobs: int = 0
    expected_jobs: int = 0
    last_job: int = 0
    counts: BuildCounts = BuildCounts()
    is_cut_off: bool = False
    master: MasterMark | None = None


def as_object(struct: msgspec.Struct) -> dict[str, object]:
    """Return a struct as a JSON object with the names of its fields.

    Bytes become text, in which a byte that is no UTF-8 is written like \\xff.
    """
    return {name: _plain(getattr(struct, name)) for name in struct.__struct_fields__}


def _plain(content: object) -> object:
    match content:
        case msgspec.Struct():
            return as_object(content)
        case tuple():
            return [_plain(entry) for entry in content]
        case bytes():
            return content.decode("utf-8", "backslashreplace")
        case enum.Enum():
            return content.value
    return content
