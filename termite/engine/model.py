"""The nouns of termite as values.

Paths below the root are `bytes` without a leading slash (`b"usr/bin/gcc"`; the root itself is
`b""`), because a file name need not be text. The texts of `Invocation` and `Command`, which plugins
see, are `str` by `os.fsdecode`. Values that are sent are msgspec structs, which are encoded without
a copy. Those that each job makes are structs too, because a frozen dataclass takes ten times as
long. The others are frozen dataclasses.

The type of a field has the limits of its value. msgspec checks them when it decodes a message, and
nowhere else.
"""

import enum
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, TypeGuard

import msgspec
from msgspec import Meta

from termite.engine.errors import Reason

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]  # of bytes, names or jobs: the range of the kernel's numbers
Offset = Annotated[int, Meta(ge=-1, le=2**63 - 1)]  # -1 means that there is none
Slots = Annotated[int, Meta(ge=0, le=1_000_000)]
UserId = Annotated[int, Meta(ge=0, le=2**32 - 2)]  # 2**32 - 1 means "no change" to chown(2)
GroupIds = Annotated[tuple[UserId, ...], Meta(max_length=256)]  # as many as termite-sandbox takes
Errno = Annotated[int, Meta(ge=0, le=999)]  # the range that libfuse accepts
Mode = Annotated[int, Meta(ge=0, le=0o177777)]  # a whole st_mode
UNKNOWN = 0  # no st_mode: nobody knows what is there, and a job that touches it must not go on
WindowSide = Annotated[int, Meta(ge=0, le=0xFFFF)]  # of the kernel's struct winsize
Seconds = Annotated[float, Meta(ge=0, le=1e9)]  # thirty years; nan is refused
Sha256 = Annotated[bytes, Meta(min_length=32, max_length=32)]
# A name for people, which goes to logs and terminals. It has no control characters, so that it
# cannot imitate a line of a log.
Label = Annotated[str, Meta(max_length=255, pattern=r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z")]

MAX_ACCESSES = 1 << 17  # of one trace; termite-sandbox notes no more
MAX_TRACED_NAMES = 1 << 20  # of one lease
MAX_TRACED_BYTES = 64 * 1024 * 1024  # of all names of a lease
MAX_PAIRS = 1 << 16  # of kinds in one trace

DEFAULT_STORE_BYTES = 20 * 1024**3
DEFAULT_STORE_FILES = 1_000_000  # 20 GiB of blobs of 4 KiB would be five million inodes


class MachineFacts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The facts of a machine about which commands may ask. "" and 0 mean that one is not known.

    `architecture` and `kernel` are those of uname(2), with the kernel's version. `cpu` is the name
    of the processor's model, and `cpu_features` a digest of all that is known of it. `cores` counts
    the processors that jobs may use, `cores_online` all of them.
    """

    architecture: Label = ""
    kernel: Label = ""
    cpu: Label = ""
    cpu_features: Annotated[bytes, Meta(max_length=64)] = b""
    cores: Count = 0
    cores_online: Count = 0


class Digest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The SHA-256 of a file's content, and its size in bytes."""

    sha256: Sha256
    size: Count


class Attr(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The attributes of one path.

    `mode` is the whole st_mode, including the type bits. `size` is in bytes. `digest` is None if
    the content was not hashed yet. `target` is the target of a symlink, else b"". `link_id` is
    equal for all names of one inode in one state of it, and 0 if the file has one name only. If the
    disk refuses to say what is there, `mode` is UNKNOWN and `size` the errno.
    """

    mode: Mode
    size: Count
    mtime_ns: int
    digest: Digest | None = None
    target: bytes = b""
    nlink: Count = 1
    link_id: int = 0


def is_directory(attr: Attr | None) -> TypeGuard[Attr]:
    """Return whether these are the attributes of a directory; None, of nothing, are not."""
    return attr is not None and stat.S_ISDIR(attr.mode)


class StdinFile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A regular file or a directory that is a job's standard input, as fstat shows it.

    `offset` is the position, in bytes, at which the next read begins.
    """

    mode: Mode
    size: Count
    mtime_ns: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    block_bytes: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    offset: Count


class WindowSize(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The size of a terminal's window in characters, and in pixels. 0 means unknown."""

    rows: WindowSide = 0
    columns: WindowSide = 0
    width: WindowSide = 0
    height: WindowSide = 0


class TerminalWish(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The streams that must be terminals of the job, and the size of their window.

    Stdout and stderr are two terminals if `is_stderr_apart`. Stdin is the terminal of stdout, if
    that is one. `is_typed_at`: a person types at the terminal (`UseTerminal`), so it is complete.
    The output of another one is left as it is, because the launcher's terminal changes it.
    """

    size: WindowSize
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    is_stderr_apart: bool = False
    is_typed_at: bool = False


class BaseVersion(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The version of a file from which a job's result derives: what the job saw at the path.

    `size` is in bytes, or -1 if the job saw nothing there. `digest` is None if the mirror did not
    know it; then only `size` and `mtime_ns` name the version.
    """

    size: Offset
    mtime_ns: int = 0
    digest: Digest | None = None

    @property
    def is_absence(self) -> bool:
        """Return whether the job saw nothing at the path."""
        return self.size < 0


class Change(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The new state of one path, which is gone if `attr` is None.

    In the live tree, a change that makes a new directory means an empty one; each entry follows as
    a change of its own. Outside the live tree, such a change does not tell the entries. The change
    of an existing directory only has its new mode and mtime. `link_to` is an earlier path of which
    this one is a hard link. `content` is False if only the mode or the times differ. `base` is only
    set in results: it is None if the new state does not depend on what was there before.
    """

    path: bytes
    attr: Attr | None
    link_to: bytes | None = None
    content: bool = True
    base: BaseVersion | None = None


class Changeset(msgspec.Struct, frozen=True, array_like=True):
    """Changes in the order in which they happened, with their number in the journal (from 1)."""

    number: Count
    changes: tuple[Change, ...]


class Exit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The end of a command: by `signal`, or with the exit code `code` if `signal` is 0."""

    code: Annotated[int, Meta(ge=0, le=255)]
    signal: Annotated[int, Meta(ge=0, le=64)] = 0  # Linux has no more, and a launcher refuses others


class Usage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The resources that a job consumed on the worker.

    `requests` counts the FUSE requests of all jobs of the mirror since the previous job ended.
    """

    wall_s: Annotated[float, Meta(ge=-1e9, le=1e9)] = 0.0  # negative if the worker's clock was set back
    user_s: Seconds = 0.0
    system_s: Seconds = 0.0
    peak_memory_bytes: Count = 0
    requests: Count = 0


class TraceMode(enum.IntEnum):
    """The way in which a job is traced, which is also that of an order for a sandbox.

    COMPILER leaves out calls that say nothing new if all programs of the job are known compilers.
    """

    OFF = 0
    EXACT = 1
    COMPILER = 2


class CacheMode(enum.StrEnum):
    """The use that a master makes of results of earlier commands: READ stores no new ones."""

    OFF = "off"
    READ = "read"
    ON = "on"


class TraceGap(enum.IntFlag):
    """The reasons why the trace of a job may lack something that the job has used.

    The values up to PATHS are those of `enum gap` in native/sandbox/trace/path_calls.h.
    """

    MOUNT = 1 << 0  # it mounted or unmounted something in a namespace of its own
    CHROOT = 1 << 1
    NAMESPACE = 1 << 2  # it entered another namespace
    FILTER = 1 << 3  # a tracer of its own missed calls; such a job runs again without a trace
    UNREADABLE = 1 << 4  # the memory of a process could not be read
    PATHS = 1 << 5  # it named too many paths
    NAMES = 1 << 6  # the jobs of the lease have named too many paths
    IMPOSSIBLE = 1 << 7  # this worker cannot trace jobs

    @property
    def words(self) -> tuple[str, ...]:
        """The names of the gaps, in lower case."""
        return tuple(str(gap.name).lower() for gap in TraceGap if gap in self)


class PackedTrace(msgspec.Struct, frozen=True, array_like=True):
    """The trace of one job, as it travels: the paths that its system calls named, and how.

    The jobs of a lease name the same paths again and again. Therefore the mirror numbers the names
    of a lease, from 0, in the order in which jobs use them. A name travels once, later its number
    does. Each Run says how many names the master has learnt, and a trace brings those after them.
    Traces may arrive in another order than they were made: names that come twice are ignored.

    Numbers are little-endian. docs/develop/trace.md says what the bits of kinds mean.

    * `calls` is the number of system calls that were noted, and `gaps` are bits of TraceGap.
    * `numbers` has the number of each name, in the order of first use: of 2 bytes each if
      `is_short`, else of 4.
    * `pairs` has the kinds that occur: of the first use, and of all uses. `kinds` has the index of
      a pair for each name: of 1 byte if there are at most 256 pairs, else of 2.
    * `names` has new names, the first of which has the number `first_name`: each with a NUL behind
      it, compressed by zlib; b"" means that there are none.
    """

    calls: Count
    gaps: Annotated[int, Meta(ge=0, lt=1 << 8)]
    is_short: bool = True
    numbers: Annotated[bytes, Meta(max_length=4 * MAX_ACCESSES)] = b""
    pairs: Annotated[tuple[tuple[int, int], ...], Meta(max_length=MAX_PAIRS)] = ()
    kinds: Annotated[bytes, Meta(max_length=2 * MAX_ACCESSES)] = b""
    first_name: Count = 0
    names: bytes = b""

    @property
    def count(self) -> int:
        """The number of paths."""
        return len(self.numbers) // (2 if self.is_short else 4)


class How(enum.Enum):
    """The way in which an invocation came to the launcher."""

    DIRECT = "direct"  # `termite gcc ...`, typed or put in front of a rule's command
    SHELL = "shell"  # `termite-shell -c ...`, a make with MAKE_SHELL
    PRELOAD = "preload"  # a build tool's own exec, through libtermite-exec.so


class Invocation(msgspec.Struct, frozen=True):
    """The call of a build tool, as the launcher received it.

    `exe` is the file to execute. If `search` is True and `exe` has no slash, it is searched in the
    PATH of `env`, as execvp does. `tool` is the base name of the build tool for PRELOAD, else "".
    `notes` has the `--name=value` words before the command, with which a front end describes it,
    such as `cmake=compile`.
    """

    argv: tuple[str, ...]
    exe: str
    search: bool
    cwd: str
    env: Mapping[str, str]
    how: How
    tool: str = ""
    notes: Mapping[str, str] = msgspec.field(default_factory=dict)


class Command(msgspec.Struct, frozen=True):
    """The command that should run. Rules are matched with `text`; see `Invocation` for `search`."""

    argv: tuple[str, ...]
    exe: str
    search: bool
    cwd: str
    env: Mapping[str, str]
    text: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `.termite-localrc` or of a plugin; `source` names its place for people.

    If `words` is not empty, `regexp` only matches texts that contain one of them. Other texts need
    no search, which would take a hundred times as long. 0 means no limit for `timeout_s` and
    `memory_bytes`. Without `log`, no record has any output of the command.
    Without `cache`, no result of it is stored or used again. `ignore_env` are shell patterns: jobs
    do not get variables with such names, so that no result can depend on them.
    """

    regexp: str
    local: bool = False
    recurse: bool = False
    skip_refresh: bool = False
    debug: bool = False
    network: bool = False
    trusted: bool = False
    log: bool = True
    timeout_s: float = 0.0
    memory_bytes: int = 0
    cache: bool = True
    ignore_env: tuple[str, ...] = ()
    source: str = "built-in"
    words: tuple[str, ...] = ()


class Verdict(msgspec.Struct, frozen=True):
    """The place where a command runs, and the rule or the tie that decides it.

    `tie` is the reason that ties the command to the master's machine, or None. If `rule` and `tie`
    are both None, `local` is False. `program` is the one that jobs may not see, or the file that
    would make code run later, if that is the tie.
    """

    local: bool
    rule: Rule | None = None
    tie: Reason | None = None
    program: str = ""


class Phase(enum.Enum):
    """The phase of a job. Reports show it, and no code depends on it."""

    DECIDING = "deciding"
    WAITING = "waiting for a slot"
    RUNNING = "running remotely"
    FETCHING = "fetching results"
    LOCAL = "running locally"


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """The limits to which a worker's store of contents is evicted: bytes on the disk, and files."""

    max_bytes: Count = DEFAULT_STORE_BYTES
    max_files: Count = DEFAULT_STORE_FILES


@dataclass(frozen=True, slots=True)
class JobNetwork:
    """The network that a worker gives to jobs to which a rule gives one.

    Such jobs are refused unless `is_given`. `pasta` is the program that connects them to other
    machines; if it is "", they have the network of the worker's machine.
    """

    is_given: bool = False
    pasta: str = ""


@dataclass(frozen=True, slots=True)
class JobLimits:
    """The limits of a worker for each job. 0 means that there is no such limit.

    `processes` counts processes and threads. A job may take `memory_bytes`. It may take only
    `fair_bytes` while less than `reserve_bytes` of the machine's memory are available.
    """

    processes: Count = 0
    memory_bytes: Count = 0
    fair_bytes: Count = 0
    reserve_bytes: Count = 0


class WorkerRoom(msgspec.Struct, frozen=True, array_like=True):
    """The room that is free on the disk of a worker's store, and in the scratch space of a lease.

    `store_max_bytes` is the limit of the store; 0 means that nothing is known.
    """

    store_max_bytes: Count = 0
    store_free_bytes: Count = 0
    store_free_files: Count = 0
    scratch_free_bytes: Count = 0
