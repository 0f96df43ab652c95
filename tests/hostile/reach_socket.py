"""Reach an abstract socket outside of the job, and one of its own.

argv: the name of the socket outside.
"""

import os
import socket
import sys


def reach(what: str, name: str, kind: int) -> None:
    client = socket.socket(socket.AF_UNIX, kind)
    try:
        client.connect("\0" + name)
        client.send(b"from a job")
        print("reached", what, flush=True)
    except OSError as error:
        print("could not reach", what, error.strerror, flush=True)


def main(outside: str) -> None:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        own = socket.socket(socket.AF_UNIX, kind)
        own.bind("\0own")
        if kind == socket.SOCK_STREAM:
            own.listen()
        if os.fork() == 0:
            reach("its own", "own", kind)
            os._exit(0)
        os.wait()
        own.close()
        reach("the worker's", f"{outside}-{kind:d}", kind)


main(sys.argv[1])
