"""Define what programs ask a master on a control connection: one JSON object a request.

`command` names the kind of the object. Its other keys are the arguments of that kind's constructor,
and `cwd` and `vantage` of the process that asks. docs/develop/protocol.md has the answers.

A build waits for the import of this module. Therefore only the master, which parses requests,
imports msgspec for it, and no type comes from typing.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping

from termite.engine.errors import Reason, UserError

TYPE_CHECKING = False  # not typing's: that import takes too long
if TYPE_CHECKING:
    from typing import Any

ControlAnswer = dict[str, "Any"]  # the answer to a request, as JSON

OTHER_VERSION = "the master may have another version: termite-ctl shutdown ends it"


class Vantage:
    """The view that a process has of its machine, as four texts.

    "" means that a text could not be determined; it never equals another text.

    * `root` is the mount and the inode of the root directory. A mount belongs to one mount
      namespace, so processes in different mount namespaces differ in it.
    * `users` is the user namespace, and the user and group in it.
    * `here` is the device and the inode of the working directory.
    * `host` is the host name, the kernel release and the machine of uname(2).
    """

    __slots__ = ("here", "host", "root", "users")

    def __init__(self, root: str = "", users: str = "", here: str = "", host: str = "") -> None:
        self.root, self.users, self.here, self.host = root, users, here, host


class ControlRequest:
    """A request of a process in the directory `cwd` ("": removed, or not sent)."""

    command = ""

    def __init__(self) -> None:
        self.cwd = ""
        self.vantage = Vantage()

    def pack(self) -> bytes:
        """Return the request as the payload of a frame CONTROL."""
        vantage = {name: getattr(self.vantage, name) for name in Vantage.__slots__}
        return json.dumps({"command": self.command, **vars(self), "vantage": vantage}).encode()


class AskStatus(ControlRequest):
    """A request for the report of the master."""

    command = "status"


class AskRefresh(ControlRequest):
    """A request to check all settled files that were served."""

    command = "refresh"


class AskShutdown(ControlRequest):
    """A request to end the master."""

    command = "shutdown"


class AskWatch(ControlRequest):
    """A request for the live stream, which takes the connection."""

    command = "watch"


class AskLogs(ControlRequest):
    """A request for at most `most` records after record `after` of the log of `worker`.

    If `worker` is "", the log is that of the master.
    """

    command = "logs"

    def __init__(self, worker: str, after: int, most: int) -> None:
        super().__init__()
        self.worker, self.after, self.most = worker, after, most


class AskWorker(ControlRequest):
    """A request for the report of a worker."""

    command = "worker"

    def __init__(self, worker: str) -> None:
        super().__init__()
        self.worker = worker


class AskDrain(ControlRequest):
    """A request that a worker takes no new jobs, or takes them again if `drained` is False."""

    command = "drain"

    def __init__(self, worker: str, drained: bool) -> None:
        super().__init__()
        self.worker, self.drained = worker, drained


class AskWhy(ControlRequest):
    """A question where a command would run.

    `tool` is the build tool whose preload library would start it, or "". `notes` are those in
    front of the command, by name.
    """

    command = "why"

    def __init__(self, argv: list[str], env: dict[str, str], tool: str, notes: dict[str, str]) -> None:
        super().__init__()
        self.argv, self.env, self.tool, self.notes = argv, env, tool, notes


class BeginBuild(ControlRequest):
    """A request that begins a build, which ends with the connection.

    The answer says how to start `tool`, if that is not "". `args` and `env` are those of the
    front end with the process `pid` (0: unknown). `preload` are the variables that make the tool's
    commands reach the launcher.
    """

    command = "build-start"

    def __init__(
        self,
        tool: str = "",
        args: list[str] | None = None,
        env: dict[str, str] | None = None,
        preload: dict[str, str] | None = None,
        pid: int = 0,
    ) -> None:
        super().__init__()
        self.tool, self.args, self.env, self.preload, self.pid = tool, args or [], env or {}, preload or {}, pid


class EndBuild(ControlRequest):
    """A request for the summary of the build of this connection.

    The tool has ended with `exit_code`, or by a signal if `signal` is not 0. An exit code of -1
    means that there is none.
    """

    command = "build-end"

    def __init__(self, exit_code: int = -1, signal: int = 0) -> None:
        super().__init__()
        self.exit_code, self.signal = exit_code, signal


_KINDS: dict[str, type[ControlRequest]] = {
    kind.command: kind
    for kind in (
        *(AskStatus, AskRefresh, AskShutdown, AskWatch, AskLogs, AskWorker, AskDrain, AskWhy),
        *(BeginBuild, EndBuild),
    )
}


def parse_request(found: Mapping[str, object]) -> ControlRequest:
    """Return the request that a JSON object is.

    Raise UserError, which is the answer, if the command is unknown, or if a key is unknown, is
    missing or has a wrong type.
    """
    command = found.get("command")
    kind = _KINDS.get(command) if isinstance(command, str) else None
    if kind is None:
        raise UserError(f"unknown command {command!r}", hint=OTHER_VERSION, reason=Reason.OTHER_PROTOCOL)
    import msgspec

    try:
        checked = msgspec.convert(found, _schema(kind.command))
    except msgspec.ValidationError as error:
        raise UserError(
            f"the request {command!r} is wrong: {error}", hint=OTHER_VERSION, reason=Reason.OTHER_PROTOCOL
        ) from None
    fields: dict[str, Any] = {name: getattr(checked, name) for name in checked.__struct_fields__}
    cwd, vantage = fields.pop("cwd"), fields.pop("vantage")
    request = kind(**fields)
    request.cwd = cwd
    request.vantage = Vantage(**{name: getattr(vantage, name) for name in Vantage.__slots__})
    return request


@functools.cache
def _schema(command: str) -> Any:
    """Return the struct that checks the keys and the types of one kind of request."""
    import msgspec

    kind = _KINDS[command]
    vantage = msgspec.defstruct("Vantage", _fields(Vantage), forbid_unknown_fields=True)
    fields = [*_fields(kind), ("cwd", str, ""), ("vantage", vantage, msgspec.field(default_factory=vantage))]
    return msgspec.defstruct(kind.__name__, fields, tag_field="command", tag=command, forbid_unknown_fields=True)


def _fields(kind: type) -> list[Any]:
    """Return the arguments of a constructor, each with its type and its default."""
    import inspect
    import typing

    types = typing.get_type_hints(vars(kind).get("__init__", ControlRequest.__init__))
    arguments = inspect.signature(kind).parameters.values()
    return [
        (one.name, types[one.name]) if one.default is one.empty else (one.name, types[one.name], one.default)
        for one in arguments
    ]
