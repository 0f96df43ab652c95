"""Find the interpreter that the head of a script names, as the kernel does (execve(2))."""

import re

SCRIPT_HEAD_BYTES = 256  # BINPRM_BUF_SIZE: the kernel looks at no more of a script
_INTERPRETER = re.compile(rb"#![ \t]*([^ \t\n\0]+)")  # the kernel knows no other blanks


def script_interpreter(head: bytes) -> bytes:
    """Return the interpreter that a file with this head names, or b"" if the kernel starts none.

    A name that goes on behind the head counts as none: the kernel rejects such a script, and then
    shells run it themselves. The name may be relative.
    """
    name = _INTERPRETER.match(head, 0, SCRIPT_HEAD_BYTES)
    return name[1] if name and name.end() < SCRIPT_HEAD_BYTES else b""
