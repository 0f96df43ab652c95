"""Find the interpreter that the head of a program names: `#!`, or the loader of an ELF file.

The kernel opens it without a system call, so no trace has it. See execve(2) and elf(5).
"""

import struct

from termite.engine.script_heads import script_interpreter

ELF_HEAD = b"\x7fELF"
_PT_INTERP = 3
# By the class of the file: offsets of e_phoff, e_phentsize and e_phnum, and of p_offset and
# p_filesz.
_FORMATS = {1: ("I", 28, 42, 44, 4, 16), 2: ("Q", 32, 54, 56, 8, 32)}


def interpreter_of(head: bytes) -> bytes | None:
    """Return the interpreter of the program that begins with `head`, or b"" if it has none.

    Return None if the head does not tell: the program is unusual, or the head is too short.
    """
    if head.startswith(b"#!"):
        return script_interpreter(head)
    if not head.startswith(ELF_HEAD):
        return b""
    try:
        return _loader_of(head)
    except (struct.error, KeyError, IndexError, OverflowError):
        return None


def _loader_of(head: bytes) -> bytes | None:
    word, table_at, size_at, count_at, offset_at, length_at = _FORMATS[head[4]]
    order = {1: "<", 2: ">"}[head[5]]
    (table,) = struct.unpack_from(order + word, head, table_at)
    (size,) = struct.unpack_from(order + "H", head, size_at)
    (count,) = struct.unpack_from(order + "H", head, count_at)
    for at in range(table, table + size * count, size or 1):
        (kind,) = struct.unpack_from(order + "I", head, at)
        if kind != _PT_INTERP:
            continue
        (offset,) = struct.unpack_from(order + word, head, at + offset_at)
        (length,) = struct.unpack_from(order + word, head, at + length_at)
        return head[offset : offset + length].rstrip(b"\0") if offset + length <= len(head) else None
    return b""
