"""Read the report that a sandbox sends at the end of its job: how the command ended, and its usage.

A report is one message of fields (`wire/protocol/fields.py`). `native/sandbox/` writes it, and
docs/develop/protocol.md lists its keys. A sandbox that was killed sends none.
"""

import errno
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from termite.engine.errors import NotAtRest, Reason, RemoteProtocolError, Retryable
from termite.engine.model import Exit, TraceGap, Usage
from termite.engine.wire.protocol.fields import parse_fields

REPORT_BYTES = 16 * 1024  # the longest text of a report is a path with an error
LARGEST = 2**63 - 1  # of a number in a report

# The word of a report for a call that only the submitter's machine can carry out.
SENT_HOME = {
    "ids": Reason.FOREIGN_IDS,
    "attributes": Reason.ATTRIBUTES_SET,
    "listener": Reason.CALLS_WATCHED,
    "links": Reason.LINKS_COMPARED,
    "space": Reason.SPACE_ASKED,
    "device": Reason.DEVICE_MADE,
}
# Those for a limit of the submitter that is higher than this machine allows.
HIGH_LIMITS = {
    "limit-s": "stack (ulimit -s)",
    "limit-n": "open files (ulimit -n)",
    "limit-v": "address space (ulimit -v)",
    "limit-d": "data (ulimit -d)",
    "limit-f": "file size (ulimit -f)",
    "limit-t": "CPU time (ulimit -t)",
    "limit-c": "core file (ulimit -c)",
}

# The callers of execvp (a shell, make) turn these into "not found", and other errors into 126.
NOT_FOUND = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})


class NotedTrace(msgspec.Struct, frozen=True):
    """The trace of a job: the paths as termite-sandbox has written them.

    `calls` is the number of system calls, and `gaps` are bits of TraceGap.
    """

    paths: bytes
    calls: int
    gaps: int


class SandboxResult(msgspec.Struct, frozen=True):
    """The end of the command, and the directory `upper` with all that it wrote.

    `exec_errno` is 0 if the command was executed. `started_ns` and `ended_ns` are times of this
    machine's clock. `stdin_offset` is -1 if standard input is no file of the mirror. `upper` stays
    until `Sandboxes.discard`. `is_full`: it may have met a limit of processes.
    `processes_made` is 0, or the number that it has made, if that is beyond its limit. `is_linked`:
    a file got another name, and a program may have compared both inode numbers. `is_left`: a
    process of the job outlived its command. `written_bytes` went to files, pipes and sockets; 0 is
    not much. `trace` is None if the job was not traced.
    """

    exit: Exit
    exec_errno: int
    usage: Usage
    started_ns: int
    ended_ns: int
    timed_out: bool
    upper: Path
    stdin_offset: int = -1
    is_full: bool = False
    processes_made: int = 0
    is_linked: bool = False
    is_left: bool = False
    written_bytes: int = 0
    trace: NotedTrace | None = None


def parse_report(message: bytes) -> dict[str, str]:
    """Return the fields of a report; there are none if the sandbox was killed.

    Raise Retryable if it is not made of fields.
    """
    try:
        return {key: content.decode(errors="replace") for key, content in parse_fields(message)}
    except RemoteProtocolError as error:
        raise Retryable(Reason.SANDBOX_FAILED, f"a report that cannot be read: {error}") from None


def sandbox_result(
    fields: Mapping[str, str], earliest_ns: int, timed_out: bool, upper: Path, paths: bytes = b""
) -> SandboxResult:
    """Return the result that the fields of a report describe. `paths` are those of its trace.

    `earliest_ns` stands in for a start time that is not known. Raises Retryable if the sandbox has
    failed, and NotAtRest if another job writes to a file of this one; both run the job once more.
    Raise Retryable with a reason that `is_for_here` if the job needs the submitter's machine, and
    with TRACE_DISTURBED if it has to run again without a trace.
    """
    if "error" in fields:
        raise Retryable(Reason.SANDBOX_FAILED, fields["error"])
    if limit := HIGH_LIMITS.get(fields.get("here", "")):
        raise Retryable(Reason.LIMIT_TOO_HIGH, limit)
    if "here" in fields:
        raise Retryable(SENT_HOME.get(fields["here"], Reason.SANDBOX_FAILED))
    if "busy" in fields:
        raise NotAtRest("another job has a file of this one open for writing")
    exec_errno = _number(fields, "exec", 0)
    started_ns = _number(fields, "started_ns", earliest_ns)  # a killed job, or one that never started, has none
    ended_ns = _number(fields, "ended_ns", time.time_ns())
    exit = _exit_in(fields, exec_errno, timed_out)
    usage = Usage(
        wall_s=(ended_ns - started_ns) / 1e9,
        user_s=_number(fields, "user_us", 0) / 1e6,
        system_s=_number(fields, "system_us", 0) / 1e6,
        peak_memory_bytes=_number(fields, "maxrss_kb", 0) * 1024,
    )
    offset, is_full = _number(fields, "stdin_offset", -1), "full" in fields
    made, is_linked, is_left = _number(fields, "made", 0), "linked" in fields, "left" in fields
    written_bytes = _number(fields, "written", 0)
    trace = _trace(fields, paths) if "calls" in fields else None
    spans = (usage, started_ns, ended_ns, timed_out)
    return SandboxResult(
        exit, exec_errno, *spans, upper, offset, is_full, made, is_linked, is_left, written_bytes, trace
    )


def _exit_in(fields: Mapping[str, str], exec_errno: int, timed_out: bool) -> Exit:
    """Return the exit of the command. Raise Retryable if the sandbox died before it."""
    if timed_out and fields:  # without a report nobody has seen that all of the job is dead
        return Exit(0, signal.SIGKILL)
    if exec_errno:
        return Exit(127 if exec_errno in NOT_FOUND else 126)
    if "status" in fields:
        return _exit_of(_number(fields, "status", 0))
    raise Retryable(Reason.SANDBOX_FAILED, "the sandbox died before its command ended")


def _trace(fields: Mapping[str, str], paths: bytes) -> NotedTrace:
    """Return the trace. Raise Retryable if the trace has changed what the job did.

    A signal has then ended calls that it does not end otherwise, or a tracer of the job's own has
    missed calls.
    """
    lost, gaps = _number(fields, "lost", 0), _number(fields, "gaps", 0)
    if lost or gaps & TraceGap.FILTER:
        raise Retryable(Reason.TRACE_DISTURBED, f"{lost} system calls" if lost else "a filter of its own")
    return NotedTrace(paths, max(_number(fields, "calls", 0), 0), gaps & int(~TraceGap(0)))


_LARGEST_STATUS = 0xFFFF  # of wait(2)


def _number(fields: Mapping[str, str], key: str, usual: int) -> int:
    """Return the number of a field, or `usual` if there is none.

    Raise Retryable for another text.
    """
    try:
        number = int(fields.get(key, usual))
    except ValueError:
        number = -LARGEST - 1
    if not -LARGEST <= number <= LARGEST:
        raise Retryable(Reason.SANDBOX_FAILED, f"a report whose {key} is no number")
    return number


def _exit_of(status: int) -> Exit:
    if not 0 <= status <= _LARGEST_STATUS:
        raise Retryable(Reason.SANDBOX_FAILED, "a report whose status is none of wait(2)")
    return Exit(0, os.WTERMSIG(status)) if os.WIFSIGNALED(status) else Exit(os.WEXITSTATUS(status))
