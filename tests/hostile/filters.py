"""An interpreter of filters of system calls, for the instructions that our filter uses."""

import struct
from dataclasses import dataclass
from pathlib import Path

ALLOW, ERROR, WATCH, ACTION = 0x7FFF0000, 0x00050000, 0x7FC00000, 0xFFFF0000
NUMBER, ARCH, ARGUMENTS, DATA_BYTES = 0, 4, 16, 64
LOAD, AND, RETURN = 0x20, 0x54, 0x06
JUMP, JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_SET = 0x05, 0x15, 0x35, 0x45

Step = tuple[int, int, int, int]


@dataclass(frozen=True)
class Verdict:
    """A verdict is the answer of a filter to a call: `error` is 0 if the call is allowed.

    If it `reads_arguments`, the kernel cannot know the answer beforehand. If it `is_watched`, the
    listener decides.
    """

    error: int
    reads_arguments: bool
    is_watched: bool = False


def read_filters(dump: bytes) -> list[list[Step]]:
    """Parse the filters that dump_filters.c has written."""
    filters = []
    while dump:
        (count,) = struct.unpack_from("=I", dump)
        filters.append([struct.unpack_from("=HBBI", dump, 4 + 8 * i) for i in range(count)])
        dump = dump[4 + 8 * count :]
    return filters


def judge(steps: list[Step], arch: int, number: int, arguments: tuple[int, ...] = ()) -> Verdict:
    """Return the verdict of a filter on a call."""
    filled = (*arguments, *[0] * (6 - len(arguments)))
    call = struct.pack("=IIQ6Q", number, arch, 0, *filled)
    place = loaded = 0
    reads_arguments = False
    while True:
        code, if_true, if_false, value = steps[place]
        place += 1
        if code == LOAD:
            assert value % 4 == 0 and value < DATA_BYTES
            reads_arguments |= value >= ARGUMENTS
            (loaded,) = struct.unpack_from("=I", call, value)
        elif code == AND:
            loaded &= value
        elif code == JUMP_EQUAL:
            place += if_true if loaded == value else if_false
        elif code == JUMP_GREATER_EQUAL:
            place += if_true if loaded >= value else if_false
        elif code == JUMP_SET:
            place += if_true if loaded & value else if_false
        elif code == JUMP:
            place += value
        else:
            assert code == RETURN
            assert value in (ALLOW, WATCH) or value & ACTION == ERROR
            return Verdict(value & 0xFFF if value & ACTION == ERROR else 0, reads_arguments, value == WATCH)


def numbers_in(header: Path) -> dict[str, int]:
    """Parse the numbers of system calls, by name, in a header of the kernel."""
    lines = (line.split() for line in header.read_text().splitlines())
    return {
        words[1].removeprefix("__NR_"): int(words[2])
        for words in lines
        if len(words) > 2 and words[0] == "#define" and words[1].startswith("__NR_") and words[2].isdecimal()
    }
