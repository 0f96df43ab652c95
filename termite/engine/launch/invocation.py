"""Parse the request of a launcher: the payload of an INVOKE frame.

The format is in docs/develop/protocol.md, "Launcher". Everything but `env` comes before the first
`env`, so that the environment, which is the same for all commands of one make, is parsed once.
"""

import enum
import functools
import os
import re
from dataclasses import dataclass

import msgspec

from termite.engine.decide.environment import Environment
from termite.engine.errors import RemoteProtocolError
from termite.engine.model import How, Invocation, StdinFile, TerminalWish, WindowSize
from termite.engine.status.control_requests import Vantage
from termite.engine.wire.protocol.fields import parse_fields
from termite.engine.wire.protocol.launcher_frames import VERSION
from termite.engine.wire.protocol.messages import LIMITS, LIMITS_CHARACTERS


class OutputKind(enum.StrEnum):
    """The kind of file that a launcher's stdout or stderr is, and so who may read it.

    COLLECTED is a pipe that the build tool itself reads; the tool's own output goes elsewhere.
    """

    TERMINAL = "tty"
    FILE = "file"
    NULL = "null"
    COLLECTED = "collected"
    OTHER = "other"


# A dict is faster than a call of an enum.
_KINDS = {kind.value: kind for kind in OutputKind}
_WAYS = {way.value: way for way in How}


@dataclass(frozen=True, slots=True)
class Inheritance:
    """The facts that a command inherits from the launcher's process.

    `limits` are as in Run; "" means unknown. `ignored` has bit N - 1 for each ignored signal N.
    `descriptor` is an open descriptor above 2 that the command names, or 0 if it names none.
    """

    limits: str = ""
    nice: int = 0
    ignored: int = 0
    descriptor: int = 0


@dataclass(frozen=True, slots=True)
class ShellWish:
    """A wish for a shell on a worker, like the job with this number; 0: in the tree.

    `keeps`: what it writes in the tree comes home. `is_recorded`: there is a record of the job, and
    its directory is that of the invocation.
    """

    job: int = 0
    keeps: bool = False
    is_recorded: bool = False


class JobRequest(msgspec.Struct, frozen=True):
    """A request of a launcher: the command, and how the launcher's process is set up.

    `umask` has the nine permission bits. If `has_stdin`, the stdin is the file `stdin_file`, or a
    stream if that is None. If not, `stdin_closed` means that descriptor 0 is closed, and
    `stdin_ended` that it is at its end. `merge`: stdout and stderr are one open file, or one
    terminal. `out` and `err` are the kinds of stdout and stderr. `window` is the size of their
    terminal; None means that neither is one. `token` is the name of the job that only this launcher
    and its master know. `shell` is set if termite-ctl wants a shell and no job.
    """

    invocation: Invocation
    umask: int
    has_stdin: bool
    merge: bool
    stdin_file: StdinFile | None = None
    stdin_closed: bool = False
    stdin_ended: bool = False
    out: OutputKind = OutputKind.OTHER
    err: OutputKind = OutputKind.OTHER
    is_stdin_terminal: bool = False
    vantage: Vantage = msgspec.field(default_factory=Vantage)
    token: bytes = b""
    inherited: Inheritance = msgspec.field(default_factory=Inheritance)
    window: WindowSize | None = None
    shell: ShellWish | None = None

    @property
    def terminal(self) -> TerminalWish | None:
        """The terminals that the job must have, or None.

        A job that has one also has it as its standard input if the launcher has.
        """
        out, err = (kind is OutputKind.TERMINAL for kind in (self.out, self.err))
        if self.window is None or not (out or err):
            return None
        return TerminalWish(self.window, self.is_stdin_terminal, out, err, out and err and not self.merge)


def parse_window(text: str) -> WindowSize:
    """Parse ROWS:COLUMNS:WIDTH:HEIGHT. Raise ValueError or ValidationError for another text."""
    rows, columns, width, height = (int(number) for number in text.split(":"))
    return msgspec.convert([rows, columns, width, height], WindowSize)


def parse_invoke(payload: bytes) -> JobRequest:
    """Parse the payload of an INVOKE frame.

    Raise RemoteProtocolError, upon which the listener drops the connection, if it is malformed.
    """
    head, separator, rest = payload.partition(b"\0env=")  # the environment comes last
    argv, notes, fields = _sort_fields(head + b"\0" if separator else head)
    if fields.get("v") != VERSION:
        raise RemoteProtocolError(f"a launcher of another version: {fields.get('v')!r}")
    get = fields.get
    stdin = get("stdin")
    try:
        invocation = _parse_command(argv, notes, fields, _parse_environment(b"env=" + rest if separator else b""))
        out, err = _KINDS[fields.get("out", "other")], _KINDS[fields.get("err", "other")]
        umask = int(fields.get("umask", "022"), 8)
        stdin_file = _parse_stdin_file(fields) if stdin == "file" else None
        inherited = _parse_inheritance(fields)
        window = parse_window(fields["window"]) if "window" in fields else None
        shell = _parse_shell(fields) if "shell" in fields else None
        token = bytes.fromhex(fields.get("token", ""))
    except (KeyError, ValueError, msgspec.ValidationError) as error:
        raise RemoteProtocolError(f"an invocation without its {error}") from None
    return JobRequest(
        invocation,
        umask & 0o777,
        has_stdin=stdin in ("read", "file"),
        merge=fields.get("merge") == "1",
        stdin_file=stdin_file,
        stdin_closed=stdin == "closed",
        stdin_ended=stdin == "ended",
        out=out,
        err=err,
        is_stdin_terminal=fields.get("in") == "tty",
        vantage=Vantage(get("root", ""), get("users", ""), get("here", ""), get("host", "")),
        token=token,
        inherited=inherited,
        window=window,
        shell=shell,
    )


def _sort_fields(payload: bytes) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Return the words of the command, the notes, and all other fields by key.

    This does as `parse_fields` does, but decodes all fields at once.
    """
    fields: dict[str, str] = {}
    argv: list[str] = []
    notes: dict[str, str] = {}
    if not payload.endswith(b"\0"):
        raise RemoteProtocolError("a field without a NUL at its end")
    for field in os.fsdecode(payload[:-1]).split("\0"):
        key, equals, content = field.partition("=")
        if key == "arg" and equals:
            argv.append(content)
        elif not equals:
            raise RemoteProtocolError(f"a field without '=': {field[:40]!r}")
        elif key == "note":
            name, _, text = content.partition("=")
            notes[name] = text
        elif key == "env":
            raise RemoteProtocolError("an environment before the command")
        else:
            fields[key] = content
    return argv, notes, fields


def _parse_command(argv: list[str], notes: dict[str, str], fields: dict[str, str], env: Environment) -> Invocation:
    """Return the command. Raise KeyError or ValueError if a field is missing or wrong."""
    cwd = fields["cwd"]
    how = _WAYS[fields["how"]]
    if not argv or not cwd.startswith("/"):
        raise RemoteProtocolError("an invocation without a command or a directory")
    return Invocation(
        argv=tuple(argv),
        exe=fields.get("exe") or argv[0],
        search=fields.get("search", "1") == "1",
        cwd=cwd,
        env=env,
        how=how,
        tool=fields.get("tool", ""),
        notes=notes,
    )


@functools.lru_cache(maxsize=16)
def _parse_environment(payload: bytes) -> Environment:
    """Parse the `env` fields, and remember the result: all commands of one make have the same."""
    variables: dict[str, str] = {}
    for key, content in parse_fields(payload):
        if key != "env":
            raise RemoteProtocolError(f"{key!r} after the environment")
        name, _, text = os.fsdecode(content).partition("=")
        variables[name] = text
    return Environment(variables)


def _parse_inheritance(fields: dict[str, str]) -> Inheritance:
    """Return what the command inherits. Raise ValueError if a field is malformed."""
    get = fields.get
    return _inheritance(get("limits", ""), get("nice", "0"), get("ignored", "0"), get("inherited", "0"))


@functools.lru_cache(maxsize=16)
def _inheritance(limits: str, *numbers: str) -> Inheritance:
    """Check the facts, which are the same for nearly all commands of one make."""
    nice, ignored, descriptor = map(int, numbers)
    if len(limits) > LIMITS_CHARACTERS or not re.search(LIMITS, limits):
        raise ValueError("limits")
    if not (0 <= nice < 20 and 0 <= ignored < 2**31 and 0 <= descriptor < 2**31):
        raise ValueError("inheritance")
    return Inheritance(limits, nice, ignored, descriptor)


def _parse_shell(fields: dict[str, str]) -> ShellWish:
    """Return the wish for a shell. Raise ValueError if a field is malformed."""
    job = int(fields["shell"])
    if not 0 <= job < 2**63:
        raise ValueError("shell")
    return ShellWish(job, fields.get("keep") == "1", fields.get("recorded") == "1")


def _parse_stdin_file(fields: dict[str, str]) -> StdinFile:
    mode = int(fields["stdin_mode"], 8)
    numbers = [int(fields[key]) for key in ("stdin_size", "stdin_mtime_ns", "stdin_block", "stdin_offset")]
    return msgspec.convert([mode, *numbers], StdinFile)  # checks what a number may be
