"""What a launcher asks for: the payload of an INVOKE frame (docs/protocol.md, "Launcher")."""

import os
from dataclasses import dataclass

from termite.engine.errors import RemoteProtocolError
from termite.engine.model import How, Invocation, StdinFile
from termite.engine.records import parse_records


@dataclass(frozen=True, slots=True)
class Asked:
    """What an INVOKE frame says besides the invocation. With `has_stdin`, it is `stdin_file` or else a stream."""

    invocation: Invocation
    umask: int
    has_stdin: bool
    merge: bool
    stdin_file: StdinFile | None = None
    stdin_closed: bool = False
    stdin_ended: bool = False


def parse_invoke(payload: bytes) -> Asked:
    """An INVOKE frame's payload."""
    fields: dict[str, bytes] = {}
    argv: list[str] = []
    env: dict[str, str] = {}
    notes: dict[str, str] = {}
    for key, content in parse_records(payload):
        if key == "arg":
            argv.append(os.fsdecode(content))
        elif key in ("env", "note"):
            name, _, text = os.fsdecode(content).partition("=")
            (env if key == "env" else notes)[name] = text
        else:
            fields[key] = content
    if fields.get("v") != b"1":
        raise RemoteProtocolError(f"a launcher of another version: {fields.get('v')!r}")
    stdin = fields.get("stdin")
    try:
        cwd = os.fsdecode(fields["cwd"])
        how = How(fields["how"].decode())
        umask = int(fields.get("umask", b"022"), 8)
        stdin_file = _parse_stdin_file(fields) if stdin == b"file" else None
    except (KeyError, ValueError) as error:
        raise RemoteProtocolError(f"an invocation without its {error}") from None
    if not argv or not cwd.startswith("/"):
        raise RemoteProtocolError("an invocation without a command or a directory")
    invocation = Invocation(
        argv=tuple(argv),
        exe=os.fsdecode(fields.get("exe", b"")) or argv[0],
        search=fields.get("search", b"1") == b"1",
        cwd=cwd,
        env=env,
        how=how,
        tool=os.fsdecode(fields.get("tool", b"")),
        notes=notes,
    )
    return Asked(
        invocation,
        umask & 0o777,
        has_stdin=stdin in (b"read", b"file"),
        merge=fields.get("merge") == b"1",
        stdin_file=stdin_file,
        stdin_closed=stdin == b"closed",
        stdin_ended=stdin == b"ended",
    )


def _parse_stdin_file(fields: dict[str, bytes]) -> StdinFile:
    return StdinFile(
        mode=int(fields["stdin_mode"], 8),
        size=int(fields["stdin_size"]),
        mtime_ns=int(fields["stdin_mtime_ns"]),
        block_bytes=int(fields["stdin_block"]),
        offset=int(fields["stdin_offset"]),
    )
