"""Make files, give a descriptor of them to the listener at an abstract socket, and end (job A).

argv: the name of the socket, the project directory, what ("directory", "file", "shm"), how many
files to make.
"""

import os
import socket
import sys
import time

KNOCK_S = 2


def descriptor(kind: str, project: str, count: int) -> int:
    os.chdir(project)
    if kind == "shm":
        for number in range(count):
            os.mkdir(f"/dev/shm/d{number:06d}")
        return os.open("/dev/shm", os.O_RDONLY)
    for number in range(count):
        with open(f"a{number:06d}", "w") as file:
            file.write(f"x{number}")
    os.mkdir("z-directory")
    for name in ("z-result", "z-directory/key"):
        with open(name, "w") as file:
            file.write("harmless\n" + "y" * 100_000)
    return os.open("z-result", os.O_RDWR) if kind == "file" else os.open(".", os.O_RDONLY)


def main(name: str, project: str, kind: str, count: int) -> None:
    given = descriptor(kind, project, count)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    deadline = time.monotonic() + KNOCK_S
    while True:
        try:
            client.connect("\0" + name)
            break
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                print("nobody listens there")
                return
            time.sleep(0.01)
        except PermissionError:
            print("the socket may not be reached")
            return
    socket.send_fds(client, [b"x"], [given])
    client.recv(1)
    print("given")


main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
