"""Stand in for a mirror process: pass lines of the master's socket to the worker, and back.

Lines that begin with `!` are for this program: `!exit N`, `!die TEXT` (on stderr), `!config`,
`!environment`, and `!deaf`.
"""

import contextlib
import json
import os
import select
import socket
import sys


def obey(word: str, rest: str, config: dict[str, object], master: socket.socket) -> None:
    if word == "!exit":
        sys.exit(int(rest))
    elif word == "!die":
        print(rest, file=sys.stderr, flush=True)
        sys.exit(7)
    elif word == "!deaf":
        master.sendall(b"said\n")
    elif word == "!config":
        master.sendall(json.dumps(config).encode() + b"\n")
    elif word == "!environment":
        master.sendall(json.dumps([dict(os.environ), os.getcwd(), os.getsid(0) == os.getpid()]).encode() + b"\n")


def receive(connection: socket.socket) -> bytes:
    """Return what has arrived; b"" if the other side is gone, whether it has read all or not."""
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


def main() -> None:
    with open(int(sys.argv[1]), "rb") as file:
        config = json.load(file)
    master = socket.socket(fileno=config["socket_fd"])
    control = socket.socket(fileno=config["control_fd"])
    master.setblocking(True)
    control.setblocking(True)
    with contextlib.suppress(ConnectionResetError):
        head = master.recv(5, socket.MSG_WAITALL)  # the beginning of a handshake, for the worker
        master.recv(int.from_bytes(head[3:], "big"), socket.MSG_WAITALL)
    deaf = False
    incoming = select.poll()
    incoming.register(master, select.POLLIN)
    incoming.register(control, select.POLLIN)
    while True:
        readable = {fd for fd, _ in incoming.poll()}
        if control.fileno() in readable:
            received = receive(control)
            if not received:
                return
            master.sendall(received)
        if master.fileno() in readable:
            received = receive(master)
            if received.startswith(b"!"):
                word, _, rest = received.decode().strip().partition(" ")
                if word == "!deaf":
                    deaf = True
                    incoming.unregister(control)
                obey(word, rest, config, master)
            elif received:
                control.sendall(received)
            elif not deaf:
                return


with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the other side is gone
    main()
