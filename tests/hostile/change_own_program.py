"""Run by the worker's own program, in namespaces of its own: change the file of that program.

The process that has made them is outside, but can be seen in the job's /proc, below that of the new
namespaces.
"""

import ctypes
import os
from collections.abc import Callable

MNT_DETACH = 2


def attempt(what: str, change: Callable[[], object]) -> None:
    try:
        change()
        print("done:", what)
    except OSError as error:
        print("could not:", what, error.strerror)


def main() -> None:
    if ctypes.CDLL(None).umount2(b"/proc", MNT_DETACH) != 0:
        print("could not: unmount /proc")
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if is_the_program(f"/proc/{pid}/exe"):
            change(f"/proc/{pid}/exe")


def is_the_program(path: str) -> bool:
    try:
        return "termite-sandbox" in os.readlink(path)
    except OSError:
        return False


def change(path: str) -> None:
    attempt("read", lambda: os.close(os.open(path, os.O_RDONLY)))
    attempt("write", lambda: os.close(os.open(path, os.O_WRONLY)))
    attempt("chmod", lambda: os.chmod(path, 0o4755))
    attempt("setxattr", lambda: os.setxattr(path, "user.evil", b"1"))
    attempt("truncate", lambda: os.truncate(path, 0))
    attempt("utime", lambda: os.utime(path, (0, 0)))


main()
