"""What a blocked thread waits for, from what /proc says of it: the line of /proc/TID/syscall, and memory that its
arguments point to.

Only calls that can wait for a pipe are known here. The numbers are those of the thread's own architecture: a 32-bit
program on a 64-bit kernel has others, and its stack below 4 GiB gives it away.
"""

import struct
from dataclasses import dataclass
from typing import Literal

# Nothing beyond these is looked at: the kernel allows no longer vectors, and nobody polls more.
MOST_VECTORS = 1024
MOST_POLLED = 1024

POLLIN, POLLRDNORM = 0x001, 0x040

Kind = Literal["read", "readv", "splice", "tee", "poll", "poll again", "select", "epoll", "io_uring"]

# A poll that was interrupted goes on as restart_syscall, with its arguments still in their registers.
X86_64: dict[int, Kind] = {
    0: "read",
    19: "readv",
    327: "readv",  # preadv2, which reads a pipe if its offset is -1
    275: "splice",
    276: "tee",
    7: "poll",
    271: "poll",  # ppoll
    219: "poll again",
    23: "select",
    270: "select",  # pselect6
    232: "epoll",
    281: "epoll",
    441: "epoll",
    426: "io_uring",
}
I386: dict[int, Kind] = {
    3: "read",
    145: "readv",
    378: "readv",
    313: "splice",
    315: "tee",
    168: "poll",
    309: "poll",
    414: "poll",
    0: "poll again",
    142: "select",
    308: "select",
    413: "select",
    256: "epoll",
    319: "epoll",
    441: "epoll",
    426: "io_uring",
}
AARCH64: dict[int, Kind] = {
    63: "read",
    65: "readv",
    286: "readv",
    76: "splice",
    77: "tee",
    73: "poll",
    128: "poll again",
    72: "select",
    22: "epoll",
    441: "epoll",
    426: "io_uring",
}
TABLES = {("x86_64", 8): X86_64, ("x86_64", 4): I386, ("aarch64", 8): AARCH64}


class Unknown(Exception):
    """Nothing can be said about programs of this architecture."""


@dataclass(frozen=True, slots=True)
class Call:
    """A system call in which a thread is blocked. A word has `word_bytes`."""

    kind: Kind
    arguments: tuple[int, ...]
    word_bytes: int


def parse_syscall(line: str, machine: str) -> Call | None:
    """None: it runs, or it waits for something that is no pipe."""
    fields = line.split()
    if len(fields) != 9:
        return None
    number, *arguments, stack, _ = (int(field, 0) for field in fields)
    word_bytes = 8 if stack >> 32 else 4
    table = TABLES.get((machine, word_bytes))
    if table is None:
        raise Unknown(f"{machine}, {8 * word_bytes} bits")
    kind = table.get(number)
    return None if kind is None else Call(kind, tuple(arguments), word_bytes)


def polled_array(call: Call) -> tuple[int, int]:
    """Address and bytes of a poll's array; more than can be is no array."""
    address, count = call.arguments[0], call.arguments[1] & 0xFFFFFFFF
    return address, 8 * count if count <= MOST_POLLED else 0


def parse_polled(memory: bytes) -> list[int]:
    """The descriptors that such an array waits to read from."""
    return [fd for fd, events, _ in struct.iter_unpack("<ihh", memory) if fd >= 0 and events & (POLLIN | POLLRDNORM)]


def read_set(call: Call) -> tuple[int, int]:
    """Address and bytes of a select's set for reading; whole words."""
    count, address = call.arguments[0] & 0xFFFFFFFF, call.arguments[1]
    words = -(-min(count, MOST_POLLED) // (8 * call.word_bytes))
    return address, words * call.word_bytes if address else 0


def parse_set(memory: bytes, call: Call) -> list[int]:
    """The descriptors in it."""
    bits = int.from_bytes(memory, "little")
    return [fd for fd in range(min(call.arguments[0] & 0xFFFFFFFF, 8 * len(memory))) if bits >> fd & 1]


def vectors(call: Call) -> tuple[int, int]:
    """Address and bytes of a readv's vectors."""
    return call.arguments[1], 2 * call.word_bytes * min(call.arguments[2], MOST_VECTORS)


def parse_vectors(memory: bytes, call: Call) -> int:
    """How much such vectors take."""
    pairs = struct.iter_unpack("<QQ" if call.word_bytes == 8 else "<II", memory)
    return sum(size for _, size in pairs)


def parse_epoll(fdinfo: str) -> list[int]:
    """The descriptors that an epoll waits to read from."""
    fds = []
    for line in fdinfo.splitlines():
        words = line.split()
        if len(words) >= 4 and words[0] == "tfd:" and int(words[3], 16) & (POLLIN | POLLRDNORM):
            fds.append(int(words[1]))
    return fds
