"""Run one job as a mirror process does.

The tests start this program inside `termite-sandbox enter`. It needs Python's own library only.
It reads a JSON object from stdin and writes another one to stdout. Bytes travel as latin-1 text.
"""

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

LIMIT_S = 30
ORDER_BYTES = 64 * 1024


def make_scratch(base: Path, tmpfs: bool) -> Path:
    base.mkdir()
    if tmpfs:
        subprocess.run(["mount", "-t", "tmpfs", "scratch", base], check=True)
    scratch = base / "1"
    scratch.mkdir()
    for name in ("upper", "work", "root"):
        (scratch / name).mkdir()
    return scratch


def upper_entries(upper: Path) -> dict[str, str]:
    """Return what the job has left, by path: the content of a file, or another thing's kind."""
    entries = {}
    for path in sorted(upper.rglob("*")):
        name = str(path.relative_to(upper))
        if path.is_file():
            entries[name] = path.read_bytes().decode("latin-1")
        else:
            entries[name] = "directory" if path.is_dir() else "other"
    return entries


def order_of(config: list[list[str]], memory: bool) -> tuple[bytes, list[int]]:
    """Return the message of a job, and the file that holds the fields if they are too many."""
    fields = b"".join(f"{key}={value}".encode("latin-1") + b"\0" for key, value in config)
    if not memory and len(fields) <= ORDER_BYTES:
        return fields, []
    fd = os.memfd_create("config")
    os.write(fd, fields)
    os.lseek(fd, 0, os.SEEK_SET)
    return b"large=1\0", [fd]


def serve(program: str, options: list[str], scratch: Path) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(LIMIT_S)
    spawner = subprocess.Popen(
        [program, "serve", *options, str(theirs.fileno()), str(scratch)],
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        restore_signals=False,
    )
    theirs.close()
    return spawner, ours


def ask_for_a_sandbox(ours: socket.socket) -> tuple[bytes, list[int]]:
    """Return what the spawner answers, and its descriptors; nothing if it has ended already.

    If it ends before it has read the request, the kernel reports that before its last words.
    """
    with contextlib.suppress(BrokenPipeError):
        ours.send(b"x")
    try:
        said, fds, _, _ = socket.recv_fds(ours, 4096, 2)
    except ConnectionResetError:
        said, fds, _, _ = socket.recv_fds(ours, 4096, 2)
    return said, fds


def wait_until_readable(fds: list[int], limit_s: float) -> list[int]:
    """Return those of `fds` that can be read; none if that is true of none within `limit_s`."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(limit_s * 1000)]


def wait_until_dead(pidfd: int) -> None:
    assert wait_until_readable([pidfd], LIMIT_S), "the sandbox is still there"
    os.close(pidfd)


def read_whole(out: int, err: int) -> tuple[bytes, bytes]:
    said = {out: b"", err: b""}
    unended = [out, err]
    while unended:
        ready = wait_until_readable(unended, LIMIT_S)
        assert ready, "the job's output does not end"
        for fd in ready:
            chunk = os.read(fd, 65536)
            said[fd] += chunk
            if not chunk:
                unended.remove(fd)
    return said[out], said[err]


def take_terminals(channel: socket.socket, typed: str) -> list[int]:
    """Take the leading ends of the job's terminals, and type at the first one."""
    said, leaders, _, _ = socket.recv_fds(channel, 4096, 2)
    if not leaders:  # the sandbox has failed
        raise SystemExit(f"no terminal: {said!r}")
    assert said == b"terminals=1\0", said
    os.write(leaders[0], typed.encode("latin-1"))
    return leaders


def read_rest(leader: int) -> str:
    """Return what a terminal still holds, without waiting: all of the job is dead."""
    os.set_blocking(leader, False)
    text = b""
    try:
        while piece := os.read(leader, 65536):
            text += piece
    except OSError:  # EAGAIN: it is empty; EIO: so it is, and nobody has it open
        pass
    return text.decode("latin-1")


def read_trace(fd: int) -> list[tuple[int, int, str]]:
    """Return the first kinds, all kinds and the path of each entry of a trace, if it has some."""
    text = os.pread(fd, os.fstat(fd).st_size, 0) or bytes(4)
    (count,) = struct.unpack_from("=I", text)
    kinds = struct.unpack_from(f"={2 * count}I", text, 4)
    paths = text[4 + 8 * count :].decode("latin-1").split("\0")
    return list(zip(kinds[::2], kinds[1::2], paths[:count], strict=True))


def main(order: dict[str, Any]) -> dict[str, Any]:
    for number in (signal.SIGPIPE, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a daemon may do so; the job must not notice
    scratch = make_scratch(Path(order["scratch"]), order["tmpfs"])
    spawner, ours = serve(order["program"], order["options"], scratch.parent)
    said, fds = ask_for_a_sandbox(ours)
    if not said.startswith(b"pid="):
        spawner.wait(timeout=LIMIT_S)  # it says why on stderr, and dies with this process
        raise SystemExit(f"no sandbox: {said!r}")
    channel_fd, pidfd = fds
    channel = socket.socket(fileno=channel_fd)
    channel.settimeout(LIMIT_S)
    if order["lone"]:
        spawner.kill()
        spawner.wait()
    message, large = order_of([["scratch", str(scratch)], *order["config"]], order["memory"])
    out, their_out = os.pipe()
    err, their_err = os.pipe()
    trace = [os.memfd_create("trace")] if order["traced"] else []
    socket.send_fds(channel, [message], [their_out, their_err, *large, *trace, *[their_err] * order["extra"]])
    os.close(their_out)
    os.close(their_err)
    if order["kill"]:
        assert os.read(out, 6) == b"ready\n"
        signal.pidfd_send_signal(pidfd, order["kill"])
    has_terminal = any(key == "terminals" and value != "0" for key, value in order["config"])
    leaders = take_terminals(channel, order["typed"]) if has_terminal else []
    output, errors = read_whole(out, err)
    fields = channel.recv(65536)
    terminals = [read_rest(leader) for leader in leaders]
    left = upper_entries(scratch / "upper")  # the job is at rest as soon as its end is reported
    wait_until_dead(pidfd)
    ours.close()
    return {
        "code": spawner.wait(timeout=LIMIT_S),
        "out": output.decode("latin-1"),
        "err": errors.decode("latin-1"),
        "terminals": terminals,
        "fields": fields.decode("latin-1"),
        "upper": left,
        "trace": read_trace(trace[0]) if trace else [],
        "announced": said.decode("latin-1"),
        "network": os.readlink("/proc/self/ns/net"),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
