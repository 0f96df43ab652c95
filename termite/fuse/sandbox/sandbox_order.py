"""Pack the order that a waiting sandbox gets: what to run, in which view, and as which user.

An order is a sequence of fields (`wire/protocol/fields.py`). `native/sandbox/` reads it, and
docs/develop/protocol.md lists its keys. This module is the only one that packs them. The
descriptors of the order's message stand in this order: stdout, stderr, the memory file of a large
order, stdin, the memory file of the trace.
"""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from termite.engine.model import TerminalWish, TraceMode
from termite.engine.wire.protocol.fields import pack_all, pack_fields
from termite.fuse.job_terminal import JobTerminal

MAX_MESSAGE_BYTES = 64 * 1024  # the sandbox reads so much as one message; a larger order is in a memory file
LARGE_ORDER = b"large=1\0"  # the message that stands for an order in a memory file


class SandboxSpec(msgspec.Struct, frozen=True):
    """The command to run, and the view in which it runs.

    `lower` is overlay's lowerdir, relative to `mount`; `env` has NAME=value. Standard input is
    `stdin_fd`, or the mirror's file `stdin/JOB` from `stdin_offset` on, or closed. -1 means that
    the field is not used; if none is, standard input is /dev/null. `merge` sends stderr into
    stdout's pipe. `timeout_s` and `memory_bytes` are limits, and 0 means none.
    `processes` is a limit of processes and threads, and 0 means none. `limits`, `nice` and
    `ignored` are as in Run. An empty `hostname` leaves the name of this machine. `terminal` is in
    place of the pipes of some streams; None means of none. `trace` is that of the sandbox, which
    was made for it.

    `on_pid` is called with the pid of the sandbox's first process, as soon as there is one.
    `on_kill` is called just before the job is killed after a time-out or a cancellation. It must
    fail the job's requests, because a process that waits for the mirror dies only when answered.
    """

    job: int
    mount: Path
    lower: str
    uid: int
    gid: int
    argv: tuple[bytes, ...]
    exe: bytes
    search: bool
    env: tuple[bytes, ...]
    cwd: bytes
    umask: int
    stdin_fd: int = -1
    stdin_offset: int = -1
    stdin_closed: bool = False
    merge: bool = False
    network: bool = False
    timeout_s: float = 0.0
    memory_bytes: int = 0
    limits: str = ""
    nice: int = 0
    ignored: int = 0
    processes: int = 0
    hostname: str = ""
    terminal: JobTerminal | None = None
    trace: TraceMode = TraceMode.OFF
    on_pid: Callable[[int], None] | None = None
    on_kill: Callable[[], None] | None = None


def pack_order(spec: SandboxSpec, scratch: Path) -> bytes:
    """Return the order for `spec`; `scratch` is the job's own directory."""
    fields = [
        ("mount", os.fsencode(spec.mount)),
        ("lower", os.fsencode(spec.lower)),
        ("scratch", os.fsencode(scratch)),
        ("uid", b"%d" % spec.uid),
        ("gid", b"%d" % spec.gid),
        ("root", b"%d" % (spec.uid == 0)),
        ("cwd", spec.cwd),
        ("umask", b"%o" % spec.umask),
        ("exe", spec.exe),
        ("search", b"%d" % spec.search),
        ("memory", b"%d" % spec.memory_bytes),
        ("limits", spec.limits.encode()),
        ("nice", b"%d" % spec.nice),
        ("ignored", b"%d" % spec.ignored),
    ]
    if spec.stdin_offset >= 0:
        fields += [("stdin", b"stdin/%d" % spec.job), ("stdin_offset", b"%d" % spec.stdin_offset)]
    if spec.processes:
        fields.append(("nproc", b"%d" % spec.processes))
    if spec.stdin_closed:
        fields.append(("stdin_closed", b"1"))
    if spec.hostname:
        fields.append(("hostname", os.fsencode(spec.hostname)))
    if spec.trace:
        fields.append(("trace", b"%d" % spec.trace))
    if spec.terminal is not None:
        fields += _terminal_fields(spec.terminal.wish)
    return pack_fields(fields) + pack_all("arg", spec.argv) + pack_all("env", spec.env)


def _terminal_fields(wish: TerminalWish) -> list[tuple[str, bytes]]:
    streams = (wish.stdin, wish.stdout, wish.stderr, wish.is_stderr_apart, wish.is_typed_at)
    terminals = sum(bit << place for place, bit in enumerate(streams))  # enum terminals of native/sandbox/sandbox.h
    size = wish.size
    return [
        ("terminals", b"%d" % terminals),
        ("rows", b"%d" % size.rows),
        ("columns", b"%d" % size.columns),
        ("width", b"%d" % size.width),
        ("height", b"%d" % size.height),
    ]
