"""The interpreter of a script is found as the kernel finds it."""

from termite.engine.script_heads import SCRIPT_HEAD_BYTES, script_interpreter
from tests.unit.tables import each_row

LONG = b"/" + b"x" * SCRIPT_HEAD_BYTES


@each_row(
    ("head", "interpreter"),
    [
        (b"#!/bin/sh\n", b"/bin/sh"),
        (b"#! \t/usr/bin/env  python3\nrest", b"/usr/bin/env"),
        (b"#!relative/sh", b"relative/sh"),
        (b"#!/bin/sh\r\n", b"/bin/sh\r"),  # only blanks, tabs and the end of the line end a name
        (b"#!/bin/a\vb\n", b"/bin/a\vb"),
        (b"#!/bin/sh\0more\n", b"/bin/sh"),
        (b"#!" + LONG + b"\n", b""),
        (b"#!" + LONG[: SCRIPT_HEAD_BYTES - 3] + b"\n", LONG[: SCRIPT_HEAD_BYTES - 3]),
        (b"#!" + LONG[: SCRIPT_HEAD_BYTES - 2] + b"\n", b""),
        (b"#!\n/bin/sh", b""),
        (b"#!", b""),
        (b" #!/bin/sh\n", b""),
        (b"\x7fELF", b""),
        (b"", b""),
    ],
)
def test_an_interpreter_is_the_first_word_of_the_line(head: bytes, interpreter: bytes) -> None:
    assert script_interpreter(head) == interpreter
