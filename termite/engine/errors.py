"""Errors by their addressee: who must act on an error decides its class.

`Reason` is the closed set of reasons for which a worker did not run a command, or its result was
not used. Code compares and counts reasons; texts are for people and steer nothing. `ExitCode` has
the exit codes of termite's own programs.
"""

import contextlib
import enum
from collections.abc import Iterator, Sequence
from errno import errorcode
from typing import TypeVar

E = TypeVar("E", bound=BaseException)

CONFLICTS_NAMED = 3  # as many paths as a person reads in one line


class ExitCode(enum.IntEnum):
    """An exit code of termite's own programs, other than 0. A command's code is passed unchanged.

    The launcher has the same numbers in native/launcher/launcher.h, but for those of the doctor.
    """

    FAILED = 100  # a program was called wrongly, or could not do its work
    LOST = 101  # the master or the workers were lost, and the command must not run again
    PROTOCOL = 102  # the master broke the protocol, and the command must not run again
    NOWHERE = 103  # no worker can run the command, and TERMITE_LOCAL=never
    DOUBTFUL = 104  # the doctor has warnings, and no failures
    UNFIT = 105  # the doctor has found a failure
    MISPLACED = 106  # the tree is built at another path than its own


class Reason(enum.StrEnum):
    """A reason why an attempt on a worker failed, a worker was refused, or a command fell back.

    The value appears on the wire, in `status --json`, in counters and in logs; people read `words`.
    """

    NO_WORKER = "no-worker"
    INTERNAL_ERROR = "internal-error"
    SETTLED_UNREADABLE = "settled-unreadable"
    OTHER_ROOT = "other-root"
    OTHER_USER = "other-user"
    OTHER_DIRECTORY = "other-directory"
    OTHER_HOST = "other-host"
    OTHER_PATH = "other-path"
    BAD_RULES = "bad-rules"
    BELOW_FAKEROOT = "below-fakeroot"
    BELOW_PSEUDO = "below-pseudo"
    BELOW_FAKECHROOT = "below-fakechroot"
    BELOW_FAKETIME = "below-faketime"
    NAMES_EXCLUDED = "names-excluded"
    OUTSIDE_TREE = "outside-tree"
    OWNERS_SHOWN = "owners-shown"
    OTHER_MACHINE = "other-machine"
    OTHER_ARCHITECTURE = "other-architecture"
    EXEC_FAILED = "exec-failed"
    FOREIGN_IDS = "foreign-ids"
    ATTRIBUTES_SET = "attributes-set"
    MODE_SET = "mode-set"
    BITS_LOST = "bits-lost"
    CALLS_WATCHED = "calls-watched"
    LINKS_COMPARED = "links-compared"
    LINK_READ = "link-read"
    PROCESS_LEFT = "process-left"
    SPACE_ASKED = "space-asked"
    DEVICE_MADE = "device-made"
    CROSSED_DEVICES = "crossed-devices"
    LIMIT_TOO_HIGH = "limit-too-high"
    DESCRIPTOR_INHERITED = "descriptor-inherited"
    READS_TERMINAL = "reads-terminal"
    UNSEEN_PROGRAM = "unseen-program"
    NOT_PUBLISHED = "not-published"
    TREE_GONE = "tree-gone"
    LATER_CODE = "later-code"
    WRITES_OUTSIDE = "writes-outside"
    NAMES_PRIVATE = "names-private"
    NAMES_FIFO = "names-fifo"
    TEMPORARY_TAKEN = "temporary-taken"

    FILE_CHANGED = "file-changed"
    FILE_UNREADABLE = "file-unreadable"
    LOOK_FAILED = "look-failed"
    TOO_MANY_LISTED = "too-many-listed"
    CONNECTION_LOST = "connection-lost"
    NO_ANSWER = "no-answer"
    BAD_ANSWER = "bad-answer"
    NO_RESOURCES = "no-resources"
    CANCELLED = "cancelled"
    TOO_LARGE = "too-large"
    RESULT_LOST = "result-lost"
    NOT_AT_REST = "not-at-rest"
    LINKED_FILE = "linked-file"
    CONFLICT = "conflict"
    JOURNAL_GAP = "journal-gap"
    STDIN_UNREADABLE = "stdin-unreadable"
    SANDBOX_FAILED = "sandbox-failed"
    SANDBOX_STUCK = "sandbox-stuck"
    DISK_FULL = "disk-full"
    SCRATCH_FULL = "scratch-full"
    MEMORY_FULL = "memory-full"
    PROCESSES_FULL = "processes-full"
    WORKER_BUSY = "worker-busy"
    NETWORK_DENIED = "network-denied"
    WORKER_BUG = "worker-bug"
    TRACE_DISTURBED = "trace-disturbed"
    INPUT_CHANGED = "input-changed"

    OTHER_PROTOCOL = "other-protocol"
    CLOCKS_DIFFER = "clocks-differ"
    NOT_TRUSTED = "not-trusted"
    UNFIT_WORKER = "unfit-worker"
    NEEDS_A_PERSON = "needs-a-person"

    @property
    def is_remembered(self) -> bool:
        """True if the reason lies in the command, so that the next result would be refused too."""
        return self in _REMEMBERED

    @property
    def words(self) -> str:
        """The text for people, without a full stop."""
        return _WORDS[self]

    @property
    def deed(self) -> str:
        """The deed that helps a worker without room, for a person there; "" for other reasons."""
        return _DEEDS.get(self, "")

    @property
    def is_for_here(self) -> bool:
        """True if only the submitter's machine can run such a command."""
        return self in _FOR_HERE


_WORDS = {
    Reason.NO_WORKER: "no worker is available",
    Reason.INTERNAL_ERROR: "an error inside termite",
    Reason.SETTLED_UNREADABLE: "the files outside the tree could not be checked",
    Reason.OTHER_ROOT: "started below another root directory than the master's (container, chroot, unshare -m)",
    Reason.OTHER_USER: "started as another user or group than the master, or in a user namespace (sg, unshare -U)",
    Reason.OTHER_DIRECTORY: "started in a directory that the master sees as another one (a mount that came later)",
    Reason.OTHER_HOST: "started with another host name or kind of machine than the master (unshare --uts, linux32)",
    Reason.OTHER_PATH: "this tree is built at another path, so none of its commands runs at its own one",
    Reason.BAD_RULES: "the file of rules has a mistake, and no good version of it was read",
    Reason.BELOW_FAKEROOT: "started below fakeroot, which works on this machine only",
    Reason.BELOW_PSEUDO: "started below pseudo, which works on this machine only",
    Reason.BELOW_FAKECHROOT: "started below fakechroot, which works on this machine only",
    Reason.BELOW_FAKETIME: "started below faketime, which works on this machine only",
    Reason.NAMES_EXCLUDED: "names a variable that -env-exclude keeps on this machine, or contains its value",
    Reason.OUTSIDE_TREE: "started outside the tree by a make or ninja below the build, and does not name the tree",
    Reason.OWNERS_SHOWN: "depends on the owners of files, and some belong to other users (tar, ls -l, test -w)",
    Reason.OTHER_MACHINE: "asks about the machine, and the worker is another one",
    Reason.OTHER_ARCHITECTURE: "the worker has another architecture",
    Reason.EXEC_FAILED: "the command cannot be started on a worker",
    Reason.FOREIGN_IDS: "gives a file or a process to another user or group (chown, setuid)",
    Reason.ATTRIBUTES_SET: "sets or moves extended attributes or access control lists",
    Reason.MODE_SET: "may set modes in a directory with a default access control list",
    Reason.BITS_LOST: "writes to a setuid or setgid file, which keeps these bits if root writes",
    Reason.CALLS_WATCHED: "watches the system calls of other processes (a seccomp listener)",
    Reason.LINKS_COMPARED: "git clones a repository of this machine by hard links",
    Reason.LINK_READ: "gives a file another name (ln), and runs a program that may compare files",
    Reason.PROCESS_LEFT: "leaves a process in the background, which would end with the job",
    Reason.SPACE_ASKED: "asks for the space of a disk (df, stat -f)",
    Reason.DEVICE_MADE: "makes a device (mknod)",
    Reason.CROSSED_DEVICES: "renames a directory of an earlier command, or links across /tmp (EXDEV)",
    Reason.LIMIT_TOO_HIGH: "a limit of the command (ulimit) is higher than a worker allows",
    Reason.DESCRIPTOR_INHERITED: "the command names a descriptor that is open on this machine only",
    Reason.READS_TERMINAL: "reads from the terminal",
    Reason.UNSEEN_PROGRAM: "uses a private program or file that jobs may not see (termite-master -export DIR shows it)",
    Reason.NOT_PUBLISHED: "the results could not be written to the tree",
    Reason.TREE_GONE: "the tree was moved or removed",
    Reason.LATER_CODE: "a result would run code later (a setuid program, a hook, a start file)",
    Reason.WRITES_OUTSIDE: "writes outside the tree",
    Reason.NAMES_PRIVATE: "names a private path, which no worker sees",
    Reason.NAMES_FIFO: "names a FIFO or a socket, whose other end may be on this machine",
    Reason.TEMPORARY_TAKEN: "the command changed something in /tmp or /var/tmp that no command on a worker has made",
    Reason.FILE_CHANGED: "a file changed before the worker had read it",
    Reason.FILE_UNREADABLE: "a file could not be read on the worker",
    Reason.LOOK_FAILED: "a file of the tree could not be looked at",
    Reason.TOO_MANY_LISTED: "workers have asked for too many directories outside the tree",
    Reason.CONNECTION_LOST: "the connection failed",
    Reason.NO_ANSWER: "no answer in time",
    Reason.BAD_ANSWER: "a wrong answer",
    Reason.NO_RESOURCES: "no descriptors or no memory were left",
    Reason.CANCELLED: "cancelled by the other side",
    Reason.TOO_LARGE: "the job's data is too large",
    Reason.RESULT_LOST: "a result is no longer in the worker's store",
    Reason.NOT_AT_REST: "files of the job changed after its end",
    Reason.LINKED_FILE: "a file with several names was changed in place",
    Reason.CONFLICT: "other commands changed the same files at the same time",
    Reason.JOURNAL_GAP: "the worker missed changes of the tree",
    Reason.STDIN_UNREADABLE: "the standard input could not be read",
    Reason.SANDBOX_FAILED: "the worker could not make a sandbox",
    Reason.SANDBOX_STUCK: "a sandbox of the worker stood still",
    Reason.DISK_FULL: "the worker's disk is full",
    Reason.SCRATCH_FULL: "the worker's scratch space is full",
    Reason.MEMORY_FULL: "the worker's memory is full",
    Reason.PROCESSES_FULL: "the worker can start no more processes",
    Reason.WORKER_BUSY: "the worker has no room for another master",
    Reason.NETWORK_DENIED: "the worker gives jobs no network (termite-worker -network)",
    Reason.WORKER_BUG: "an error inside termite on the worker",
    Reason.TRACE_DISTURBED: "the trace of the command has disturbed it, and it runs again without a trace",
    Reason.INPUT_CHANGED: "the command failed while an input of it changed, and it runs again",
    Reason.OTHER_PROTOCOL: "the other side has another version of termite",
    Reason.CLOCKS_DIFFER: "the clocks of the two machines differ",
    Reason.NOT_TRUSTED: "the other side does not belong to this cluster",
    Reason.UNFIT_WORKER: "this worker cannot run jobs",
    Reason.NEEDS_A_PERSON: "the other side cannot go on until a person acts",
}

_DEEDS = {
    Reason.DISK_FULL: "make room there on the disk of termite-worker -cachedir, or lower -cache-size",
    Reason.SCRATCH_FULL: "there, raise termite-worker -scratch-size, or use -scratch disk with a large -tmpdir",
    Reason.MEMORY_FULL: "there, start termite-worker with fewer -jobs, or with another -job-memory",
    Reason.PROCESSES_FULL: "there, start termite-worker with fewer -jobs, or with more -job-processes",
}

_FOR_HERE = frozenset(
    {
        Reason.FOREIGN_IDS,
        Reason.OWNERS_SHOWN,
        Reason.ATTRIBUTES_SET,
        Reason.MODE_SET,
        Reason.BITS_LOST,
        Reason.CALLS_WATCHED,
        Reason.LINKS_COMPARED,
        Reason.LINK_READ,
        Reason.PROCESS_LEFT,
        Reason.SPACE_ASKED,
        Reason.DEVICE_MADE,
        Reason.LIMIT_TOO_HIGH,
        Reason.LINKED_FILE,
        Reason.READS_TERMINAL,
        Reason.CROSSED_DEVICES,
    }
)

# A command that reads from a terminal may be started without one the next time.
_REMEMBERED = (_FOR_HERE - {Reason.READS_TERMINAL}) | {Reason.LATER_CODE, Reason.WRITES_OUTSIDE, Reason.TEMPORARY_TAKEN}


def words_of(reason: str) -> str:
    """Return the words for a reason that another process named, or an unknown reason unchanged."""
    return Reason(reason).words if reason in _WORDS else reason


class TermiteError(Exception):
    """A termite error has an addressee who must act on it."""


class UserError(TermiteError):
    """An error for the user, who sees one line and a hint, never a traceback.

    `hint` may be "". `reason` counts the error if a worker or the coordinator caused it.
    """

    def __init__(self, message: str, hint: str = "", reason: Reason = Reason.NEEDS_A_PERSON) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class Retryable(TermiteError):
    """An error for the scheduler: the job may succeed on another lease, or locally.

    `detail` is for people, and may be "".
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason.words}: {self.detail}" if self.detail else self.reason.words


class Outdated(Retryable):
    """An error for the scheduler: a file changed before the job had read it.

    The worker is not to blame, and may run the job again.
    """

    def __init__(self, detail: str = "") -> None:
        super().__init__(Reason.FILE_CHANGED, detail)


class ResultRefused(TermiteError):
    """An error for the scheduler: a result must not come home, and the command runs here instead.

    No other worker would do better. `places` are the paths that are to blame.
    """

    def __init__(self, reason: Reason, places: Sequence[str]) -> None:
        super().__init__(reason.words)
        self.reason = reason
        self.places = places


class NotAtRest(Retryable):
    """An error for the scheduler: files that are no results may change after their job's end."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(Reason.NOT_AT_REST, detail)


class Conflict(Retryable):
    """An error for the scheduler: a result derives from files that have changed since.

    Nothing of the result is published, and no worker is to blame. `paths` are those files, and
    `derived` are all files of the result that derive from others.
    `is_held`: a command that runs on this machine because of a conflict may change them now.
    """

    def __init__(self, paths: tuple[bytes, ...], derived: tuple[bytes, ...], *, is_held: bool = False) -> None:
        named = (path.decode("utf-8", "surrogateescape") for path in paths[:CONFLICTS_NAMED])
        super().__init__(Reason.CONFLICT, ", ".join(repr(f"/{path}") for path in named))
        self.paths = paths
        self.derived = derived
        self.is_held = is_held


class ConnectionLost(Retryable):
    """An error for the scheduler: the other side of a connection went away or stopped answering."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(Reason.CONNECTION_LOST, detail)


class RemoteBug(Retryable):
    """An error for the scheduler: a bug of the other side. `detail` is the end of its traceback."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(Reason.WORKER_BUG, detail)


class RemoteProtocolError(TermiteError):
    """An error about the other side, which broke the protocol: its connection is dropped."""


class FsError(TermiteError):
    """An error for a job: its system call fails with `errno`, as on the master's machine.

    `path` is b"" if no path is to blame.
    """

    def __init__(self, errno: int, path: bytes = b"") -> None:
        super().__init__(errno, path)
        self.errno = errno
        self.path = path

    def __str__(self) -> str:
        return errorcode.get(self.errno, str(self.errno))


class HalfPublished(TermiteError):
    """An error for a job: it has happened, but its results could not all be written to the tree.

    The command must not run again. `lines` tell the user what was written, and what was not.
    """

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__(*lines)
        self.lines = lines


class Stale(TermiteError):
    """An error for the requester of a version of a file that has changed since.

    `file` is its path in the tree of the root directory, or a text that names it.
    """

    def __init__(self, file: bytes | str) -> None:
        super().__init__(file)
        self.detail = file if isinstance(file, str) else "/" + file.decode(errors="surrogateescape")


def errors_in(group: BaseExceptionGroup[E]) -> Iterator[E]:
    """Yield the errors in a group and in the groups inside it, in their order."""
    for error in group.exceptions:
        yield from errors_in(error) if isinstance(error, BaseExceptionGroup) else (error,)


@contextlib.contextmanager
def first_error() -> Iterator[None]:
    """Raise the first error of an exception group itself, not the group.

    Use this around a nursery whose tasks all fail for the same reason.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        error = next(errors_in(group))
        raise error from error.__cause__
