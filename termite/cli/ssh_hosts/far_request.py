"""Run the far side on a host over ssh: send one request, and wait for its answer.

The system's ssh is used as the user has set it up: keys, host keys, jumps and names are those of
its own files. Nothing is asked at a terminal. The secret goes through standard input only.

A host may answer anything: what it says has a limit, and each answer is checked.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar

import msgspec

from termite.cli.ssh_hosts.far.place import MARK, FarMessage
from termite.cli.ssh_hosts.ssh_faults import no_python_error, ssh_error
from termite.cli.written_files.host_list import HostAddress
from termite.engine.errors import UserError

PYTHON = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"  # as bundles name it
OPTIONS = ("-T", "-a", "-x", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15")
SSH_FAILED = 255
MOST_ANSWER_BYTES = 1024 * 1024  # with all that start files of shells print
MOST_ERRORS_BYTES = 64 * 1024  # of what ssh has said last
PIECE_BYTES = 4096
END_S = 1.0  # for the rest of it
_OTHER = "is it the machine that you mean? see what ssh says there"
# In the order of their imports: each module finds the earlier ones as if they were installed.
MODULES = ("place", "bundle_files", "user_services", "far_worker", "far_program")
_FAR = "termite.cli.ssh_hosts.far"
# The user's shell may be any: there is no quote, dollar or exclamation mark inside the quotes. The
# first line of the input is the length of the program that follows.
_COMMAND = (
    f"exec /bin/sh -c 'test -x {PYTHON} || "
    f"{{ echo {MARK}no-python `uname -m` `/usr/bin/python3 -V 2>&1`; exit 97; }}; "
    f'exec {PYTHON} -I -S -c "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"\''
)
_LOADER = """\
import sys, types
for name, text in {modules!r}:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
module.main()
"""


class HostRefusal(UserError):
    """An error that the far side has foreseen. A claim that ends so has changed nothing there."""


ProgressNote = Callable[[str], None]
T = TypeVar("T")


def far_program() -> bytes:
    """Return the far side as one program."""
    folder = Path(__file__).with_name("far")
    modules = [(f"{_FAR}.{name}", (folder / f"{name}.py").read_text()) for name in MODULES]
    return _LOADER.format(modules=modules).encode()


def ask_host(
    address: HostAddress,
    request: FarMessage,
    note: ProgressNote,
    *,
    secret: bytes = b"",
    bundle: BinaryIO | None = None,
) -> FarMessage:
    """Let the far side answer a request, and return the answer. `note` gets lines about its work.

    Raise UserError if the host cannot be reached or cannot do it, and HostRefusal if it refuses.
    """
    size = os.fstat(bundle.fileno()).st_size if bundle else 0
    program = far_program()
    whole = {**request, "secret_bytes": len(secret), "bundle_bytes": size}
    head = b"%d\n%s%s\n%s" % (len(program), program, json.dumps(whole).encode(), secret)
    process, errors = _start_ssh(["ssh", *OPTIONS, *address.words, _COMMAND])
    said = bytearray()
    listener = threading.Thread(target=_keep_end, args=(errors, said), daemon=True)
    listener.start()
    with process:
        assert process.stdin is not None and process.stdout is not None
        feeder = threading.Thread(target=_feed, args=(process.stdin, head, bundle), daemon=True)
        feeder.start()
        try:
            answer = _read_answer(address, process.stdout, note)
        except BaseException:
            process.terminate()
            raise
        code = process.wait()
        feeder.join()
    if answer is not None:
        return answer
    listener.join(END_S)  # a connection that ssh keeps for others (ControlPersist) has it open, too
    raise ssh_error(address, code, bytes(said).decode(errors="replace"))


def _start_ssh(command: list[str]) -> tuple["subprocess.Popen[bytes]", int]:
    """Start ssh, and return a descriptor from which its messages are read. Raise UserError."""
    errors, for_ssh = os.pipe()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=for_ssh,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        os.close(errors)
        raise UserError("there is no program ssh", hint="Debian: apt-get install openssh-client") from error
    except OSError as error:
        os.close(errors)
        raise UserError(f"ssh cannot be started: {error.strerror}", hint="see type -a ssh") from error
    finally:
        os.close(for_ssh)
    return process, errors


def checked(address: HostAddress, answer: FarMessage, kind: type[T]) -> T:
    """Return an answer of a host, which must be of this kind. Raise UserError if it is not."""
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise UserError(f"{address.text} answers what termite does not know: {error}", hint=_OTHER) from error


def _feed(stdin: IO[bytes], head: bytes, bundle: BinaryIO | None) -> None:
    """Write the input of ssh. If it ends before, its answer says why."""
    with suppress(OSError), stdin:
        stdin.write(head)
        if bundle is not None:
            sent_bytes = 0
            while piece := os.pread(bundle.fileno(), 1 << 20, sent_bytes):
                sent_bytes += stdin.write(piece)


def _keep_end(fd: int, end: bytearray) -> None:
    """Read a pipe to its end, keep the last bytes of it, and close it."""
    try:
        while piece := os.read(fd, PIECE_BYTES):
            end += piece
            del end[:-MOST_ERRORS_BYTES]
    finally:
        os.close(fd)


def _lines(address: HostAddress, stdout: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines that a host says. Raise UserError if it does not end."""
    left = MOST_ANSWER_BYTES
    while line := stdout.readline(left + 1):
        left -= len(line)
        if left < 0:
            raise UserError(f"{address.text} says more than an answer has", hint=_OTHER)
        yield line


def _read_answer(address: HostAddress, stdout: IO[bytes], note: ProgressNote) -> FarMessage | None:
    """Return the answer, or None if the connection ends without one. Raise UserError."""
    answer: FarMessage | None = None
    for line in _lines(address, stdout):
        text = line.decode(errors="replace").rstrip("\n")
        if not text.startswith(MARK):
            continue
        if (error := no_python_error(address, PYTHON, text.removeprefix(MARK))) is not None:
            raise error
        message = _parse(text.removeprefix(MARK))
        if "error" in message:
            kind = HostRefusal if message.get("refused") is True else UserError
            raise kind(f"{address.text}: {message['error']}", hint=str(message.get("hint", "")))
        if isinstance(message.get("done"), dict):
            answer = message["done"]
        elif "note" in message:
            note(str(message["note"]))
    return answer


def _parse(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):  # a host may answer anything
        return {}
    return message if isinstance(message, dict) else {}
