"""A master that says what a test wants: the other end of "Launcher" in docs/develop/protocol.md."""

import contextlib
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

LIMIT_S = 20.0


def frame(kind: str, payload: bytes = b"") -> bytes:
    return struct.pack("<I", len(payload)) + kind.encode() + payload


def fields(*pairs: tuple[str, str]) -> bytes:
    return b"".join(f"{key}={value}".encode() + b"\0" for key, value in pairs)


def exit_code(code: int) -> bytes:
    return frame("E", fields(("code", str(code))))


def exit_signal(signal: int) -> bytes:
    return frame("E", fields(("signal", str(signal))))


def parse_fields(payload: bytes) -> list[tuple[str, bytes]]:
    assert payload == b"" or payload.endswith(b"\0")
    pairs = [field.split(b"=", 1) for field in payload.split(b"\0")[:-1]]
    return [(key.decode(), value) for key, value in pairs]


class Invocation:
    """The fields of an `I` frame."""

    def __init__(self, payload: bytes) -> None:
        self.pairs = parse_fields(payload)

    def all(self, key: str) -> list[bytes]:
        return [value for name, value in self.pairs if name == key]

    def __getitem__(self, key: str) -> bytes:
        (value,) = self.all(key)
        return value

    @property
    def env(self) -> dict[bytes, bytes]:
        return dict(entry.split(b"=", 1) for entry in self.all("env"))


class Conversation:
    """A connection with one launcher."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(LIMIT_S)
        kind, payload = self.receive()
        assert kind == "I"
        self.invocation = Invocation(payload)

    def say(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(frames))

    def say_bytewise(self, *frames: bytes) -> None:
        for byte in b"".join(frames):
            self.socket.sendall(bytes([byte]))

    def receive(self) -> tuple[str, bytes]:
        length, kind = struct.unpack("<Ic", self._exactly(5))
        return kind.decode(), self._exactly(length)

    def is_closed(self) -> bool:
        """Wait until the launcher closes the connection. Return whether it sent nothing more."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def vanish(self) -> None:
        self.socket.close()

    def _exactly(self, length: int) -> bytes:
        taken = bytearray()
        while len(taken) < length:
            piece = self.socket.recv(length - len(taken))
            assert piece, "the launcher has closed the connection"
            taken += piece
        return bytes(taken)


class FakeMaster:
    """A listener on the socket of a master."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._conversations = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        self._listener.settimeout(LIMIT_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._conversations.close()
        self._listener.close()
        self.path.unlink(missing_ok=True)

    def accept(self) -> Conversation:
        connection, _ = self._listener.accept()
        self._conversations.enter_context(connection)
        return Conversation(connection)


@contextlib.contextmanager
def started(
    argv: Sequence[str | bytes | Path],
    cwd: Path,
    *,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    group: bool = True,
    restore_signals: bool = True,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process, and kill it at the end of the block, whatever happens in between."""
    process = subprocess.Popen(
        argv,
        cwd=cwd,
        env=env,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=group,
        restore_signals=restore_signals,
    )
    try:
        yield process
    finally:
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()
        process.wait(LIMIT_S)


def finish(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    """Wait for the process to end, and return its exit code, stdout and stderr."""
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out or b"", err or b""
