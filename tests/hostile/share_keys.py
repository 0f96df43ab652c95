"""Leave a key for later jobs in every keyring that is there, or look for such a key.

`share_keys.py leave` or `share_keys.py look`. The kernel has no filter of system calls.
"""

import ctypes
import os
import platform
import sys

ADD_KEY, KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}[platform.machine()]
JOIN_SESSION_KEYRING, SEARCH, READ, SET_PERMISSIONS = 1, 10, 11, 5
KEYRINGS = {"session": -3, "user": -4, "user's session": -5}
EVERYTHING = 0x3F3F3F3F
libc = ctypes.CDLL(None, use_errno=True)


def call(what: str, number: int, *arguments: object) -> int:
    outcome: int = libc.syscall(number, *arguments)
    print(f"could not {what}: {os.strerror(ctypes.get_errno())}" if outcome < 0 else f"done: {what}")
    return outcome


def leave() -> None:
    for name, keyring in KEYRINGS.items():
        key = call(f"leave a key in the keyring {name}", ADD_KEY, b"user", b"left", b"SECRET", 6, keyring)
        if key > 0:
            call("open the key", KEYCTL, SET_PERMISSIONS, key, EVERYTHING)
            call("open the keyring", KEYCTL, SET_PERMISSIONS, keyring, EVERYTHING)
    if call("join a keyring by name", KEYCTL, JOIN_SESSION_KEYRING, b"of-all-jobs") > 0:
        call("leave a key in a named keyring", ADD_KEY, b"user", b"left", b"SECRET", 6, KEYRINGS["session"])
        call("open that keyring", KEYCTL, SET_PERMISSIONS, KEYRINGS["session"], EVERYTHING)


def look() -> None:
    room = ctypes.create_string_buffer(100)
    for name, keyring in KEYRINGS.items():
        key = call(f"search the keyring {name}", KEYCTL, SEARCH, keyring, b"user", b"left", 0)
        if key > 0 and call("read the key", KEYCTL, READ, key, room, len(room)) > 0:
            print("the key is", room.value.decode())
    if call("join a keyring by name", KEYCTL, JOIN_SESSION_KEYRING, b"of-all-jobs") > 0:
        key = call("search the named keyring", KEYCTL, SEARCH, KEYRINGS["session"], b"user", b"left", 0)
        if key > 0 and call("read the key", KEYCTL, READ, key, room, len(room)) > 0:
            print("the key is", room.value.decode())
    with open("/proc/keys") as keys:  # what it may see: a number is enough to read an open one
        for number in [int(line.split()[0], 16) for line in keys if " user " in line]:
            if call(f"read key {number:x}", KEYCTL, READ, number, room, len(room)) > 0:
                print("the key is", room.value.decode())


if __name__ == "__main__":
    {"leave": leave, "look": look}[sys.argv[1]]()
