"""The nouns of termite as values.

Paths below the root are `bytes` without a leading slash (`b"usr/bin/gcc"`, the root itself is `b""`), as the kernel
has them: a file name need not be text. What a plugin sees (`Invocation`, `Command`) is `str` by `os.fsdecode`.
Values that travel are msgspec structs, so that they are encoded without a copy; the others are frozen dataclasses.

What a number or a text may be is part of its type. msgspec checks that where a message is decoded, and nowhere else.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
from msgspec import Meta

from termite.engine.errors import Reason

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]  # of bytes, names, jobs: what the kernel's own numbers are
Offset = Annotated[int, Meta(ge=-1, le=2**63 - 1)]  # -1: there is none
Slots = Annotated[int, Meta(ge=0, le=1_000_000)]
UserId = Annotated[int, Meta(ge=0, le=2**32 - 2)]  # the last one means "leave it" to chown(2)
Errno = Annotated[int, Meta(ge=0, le=999)]  # libfuse passes no other on
Mode = Annotated[int, Meta(ge=0, le=0o177777)]  # a whole st_mode
Seconds = Annotated[float, Meta(ge=0, le=1e9)]  # thirty years; nan is none
Sha256 = Annotated[bytes, Meta(min_length=32, max_length=32)]
# A name for people, which goes to logs and terminals: no control characters, so that it cannot pretend to be a line.
Label = Annotated[str, Meta(max_length=255, pattern=r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z")]


class Digest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """SHA-256 of a content and its size in bytes."""

    sha256: Sha256
    size: Count


class Attr(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is known of one path.

    `mode` is the whole st_mode, type bits included. `digest` is None where the content was not hashed yet. `link_id`
    is equal for names of one inode (hard links) in one state of it, and 0 where the file has one name only.
    """

    mode: Mode
    size: Count
    mtime_ns: int
    digest: Digest | None = None
    target: bytes = b""
    nlink: Count = 1
    link_id: int = 0


class StdinFile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A regular file (or a directory) that is a job's standard input: what fstat says of it, and where reading is."""

    mode: Mode
    size: Count
    mtime_ns: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    block_bytes: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    offset: Count


class Change(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One path is now `attr`, or gone where `attr` is None.

    A change that makes a directory where none was (or after its deletion in the same list) says "an empty directory" in
    the live tree, and everything in it follows as changes of its own; elsewhere it says nothing of what is in it. A
    change of a directory that exists says only its new mode and mtime. `link_to` names an earlier path of which this
    one is a hard link. `content` is False where only mode or times differ.
    """

    path: bytes
    attr: Attr | None
    link_to: bytes | None = None
    content: bool = True


class Changeset(msgspec.Struct, frozen=True, array_like=True):
    """Changes in the order in which they happened, under their number in the journal (first is 1)."""

    number: Count
    changes: tuple[Change, ...]


class Exit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a command ended: by `signal` where that is not 0, else with `code`."""

    code: Annotated[int, Meta(ge=0, le=255)]
    signal: Annotated[int, Meta(ge=0, le=127)] = 0


class Usage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a job consumed on the worker."""

    wall_s: Annotated[float, Meta(ge=-1e9, le=1e9)] = 0.0  # below 0 where the worker's clock was set back
    user_s: Seconds = 0.0
    system_s: Seconds = 0.0
    peak_memory_bytes: Count = 0
    requests: Count = 0


class How(enum.Enum):
    """Which way an invocation came to the launcher."""

    DIRECT = "direct"  # `termite gcc ...`, typed or put in front of a rule's command
    SHELL = "shell"  # `termite-shell -c ...`, a make with MAKE_SHELL
    PRELOAD = "preload"  # a build tool's own exec, through libtermite-exec.so


@dataclass(frozen=True, slots=True)
class Invocation:
    """What the build tool called.

    `exe` is the file to execute; with `search` and no slash in it, it is looked for in the PATH of `env`, as execvp
    does. `tool` is the base name of the build tool for PRELOAD, else empty. `notes` are the `--name=value` words that
    stood before the command: what a front end says about it, such as `cmake=compile`.
    """

    argv: tuple[str, ...]
    exe: str
    search: bool
    cwd: str
    env: Mapping[str, str]
    how: How
    tool: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Command:
    """What should run. `text` is the command string that rules are matched with."""

    argv: tuple[str, ...]
    exe: str
    search: bool
    cwd: str
    env: Mapping[str, str]
    text: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `.termite-localrc` or of a plugin; `source` says where it stands.

    `words`: every command in which `regexp` is found has one of them in it; no other need be searched, which would take
    a hundred times as long. Empty: nothing is known of that.
    """

    regexp: str
    local: bool = False
    recurse: bool = False
    skip_refresh: bool = False
    debug: bool = False
    network: bool = False
    timeout_s: float = 0.0
    memory_bytes: int = 0
    source: str = "built-in"
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a command runs, and what said so: a rule, or a tie to this machine. Neither: nothing, so remote."""

    local: bool
    rule: Rule | None = None
    tie: Reason | None = None


class Phase(enum.Enum):
    """Where a job is: reported only, nothing is steered by it."""

    DECIDING = "deciding"
    WAITING = "waiting for a slot"
    RUNNING = "running remotely"
    FETCHING = "bringing home"
    LOCAL = "running locally"
