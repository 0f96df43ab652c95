"""Become a program for which some system calls fail, as in a container with a seccomp profile.

usage: python3 forbid_calls.py ERRNO CALL[,CALL...] PROGRAM [ARGUMENT...]

The program needs Python's own library only. Its children are bound by the filter, too.
"""

import ctypes
import errno
import os
import struct
import sys

NUMBERS = {
    "x86_64": {"sethostname": 170, "unshare": 272, "mount": 165},
    "aarch64": {"sethostname": 161, "unshare": 97, "mount": 40},
}
LOAD_NUMBER, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000  # seccomp(2): SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, MODE_FILTER = 22, 38, 2


def forbid(numbers: list[int], error: int) -> None:
    steps = [struct.pack("=HBBI", LOAD_NUMBER, 0, 0, 0)]
    for number in numbers:
        steps += [struct.pack("=HBBI", JUMP_IF_EQUAL, 0, 1, number), struct.pack("=HBBI", RETURN, 0, 0, FAIL | error)]
    steps.append(struct.pack("=HBBI", RETURN, 0, 0, ALLOW))
    text = ctypes.create_string_buffer(b"".join(steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(text))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for words in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, MODE_FILTER, program, 0, 0)):
        if prctl(*(ctypes.c_ulong(word) if isinstance(word, int) else word for word in words)) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    calls = NUMBERS[os.uname().machine]
    forbid([calls[name] for name in sys.argv[2].split(",")], getattr(errno, sys.argv[1]))
    os.execvp(sys.argv[3], sys.argv[3:])
