"""Parse what /proc shows of a blocked thread: its system call, and the memory of the arguments.

The line of /proc/TID/syscall has the number of the call, six arguments, and two addresses. This
module knows only calls that can wait for a pipe. The numbers are those of the thread's own
architecture. A 32-bit program on a 64-bit kernel has others, and its stack lies below 4 GiB.
"""

import struct
from dataclasses import dataclass
from typing import Literal

# Longer arrays are not read: the kernel allows no longer vectors, and no program polls more.
MAX_VECTORS = 1024
MAX_POLLED = 1024

POLLIN, POLLRDNORM = 0x001, 0x040  # of poll(2) and epoll(7)

CallKind = Literal["read", "readv", "splice", "tee", "poll", "poll again", "select", "epoll", "io_uring"]

# A poll that was interrupted goes on as restart_syscall ("poll again"), with its arguments still in
# their registers.
X86_64: dict[int, CallKind] = {
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
I386: dict[int, CallKind] = {
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
AARCH64: dict[int, CallKind] = {
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


class UnknownArchitecture(Exception):
    """An architecture whose calls are not known. The caller assumes that the thread may wait."""


@dataclass(frozen=True, slots=True)
class BlockedCall:
    """A system call in which a thread is blocked. A word of its memory has `word_bytes` bytes."""

    kind: CallKind
    arguments: tuple[int, ...]
    word_bytes: int


def parse_syscall(line: str, machine: str) -> BlockedCall | None:
    """Parse the line of /proc/TID/syscall on a `machine` as uname names it.

    Return None if the thread runs, or waits in a call that never waits for a pipe. Raises
    UnknownArchitecture if the numbers of its calls are not known.
    """
    fields = line.split()
    if len(fields) != 9:
        return None
    number, *arguments, stack, _ = (int(field, 0) for field in fields)
    word_bytes = 8 if stack >> 32 else 4
    table = TABLES.get((machine, word_bytes))
    if table is None:
        raise UnknownArchitecture(f"{machine}, {8 * word_bytes} bits")
    kind = table.get(number)
    return None if kind is None else BlockedCall(kind, tuple(arguments), word_bytes)


def polled_array(call: BlockedCall) -> tuple[int, int]:
    """Return the address and the bytes of a poll's array; 0 bytes if it is too long."""
    address, count = call.arguments[0], call.arguments[1] & 0xFFFFFFFF
    return address, 8 * count if count <= MAX_POLLED else 0


def parse_polled(memory: bytes) -> list[int]:
    """Return the descriptors that a poll's array waits to read from."""
    return [fd for fd, events, _ in struct.iter_unpack("<ihh", memory) if fd >= 0 and events & (POLLIN | POLLRDNORM)]


def select_set(call: BlockedCall) -> tuple[int, int]:
    """Return the address and the bytes of a select's set for reading, in whole words."""
    count, address = call.arguments[0] & 0xFFFFFFFF, call.arguments[1]
    words = -(-min(count, MAX_POLLED) // (8 * call.word_bytes))
    return address, words * call.word_bytes if address else 0


def parse_select_set(memory: bytes, call: BlockedCall) -> list[int]:
    """Return the descriptors in a select's set."""
    bits = int.from_bytes(memory, "little")
    return [fd for fd in range(min(call.arguments[0] & 0xFFFFFFFF, 8 * len(memory))) if bits >> fd & 1]


def vector_array(call: BlockedCall) -> tuple[int, int]:
    """Return the address and the bytes of a readv's vectors."""
    return call.arguments[1], 2 * call.word_bytes * min(call.arguments[2], MAX_VECTORS)


def parse_vectors(memory: bytes, call: BlockedCall) -> int:
    """Return how many bytes a readv's vectors take in all."""
    pairs = struct.iter_unpack("<QQ" if call.word_bytes == 8 else "<II", memory)
    return sum(size for _, size in pairs)


def parse_epoll(fdinfo: str) -> list[int]:
    """Return the descriptors that an epoll waits to read from, by its file in /proc/TID/fdinfo."""
    fds = []
    for line in fdinfo.splitlines():
        words = line.split()
        if len(words) >= 4 and words[0] == "tfd:" and int(words[3], 16) & (POLLIN | POLLRDNORM):
            fds.append(int(words[1]))
    return fds
