"""Run a command on a kernel without Landlock: `without_landlock.py PROGRAM [ARGUMENT...]`.

With the word `seccomp` first, it is a kernel that cannot install filters of system calls.

A filter of system calls, which the program and all that it starts inherit, answers ENOSYS to
landlock_create_ruleset or seccomp, as such a kernel does. It needs its own library only, because it
runs as users who cannot read more.
"""

import ctypes
import os
import struct
import sys

LANDLOCK_CREATE_RULESET = 444  # on every architecture
SECCOMP = {"x86_64": 317, "aarch64": 277}
ENOSYS = 38
SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x00050000, 0x7FFF0000
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


def main(command: list[str]) -> None:
    number = LANDLOCK_CREATE_RULESET
    if command[0] == "seccomp":
        number, command = SECCOMP[os.uname().machine], command[1:]
    steps = [
        (LOAD_WORD, 0, 0, 0),  # the number of the system call
        (JUMP_IF_EQUAL, 0, 1, number),
        (RETURN, 0, 0, SECCOMP_RET_ERRNO | ENOSYS),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
