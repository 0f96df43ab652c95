"""Make the seeds of the fuzz targets with the product's own packers.

    python -m tests.fuzz.seeds

writes those that do not exist to `tests/fuzz/corpus/TARGET`. Inputs that were found later stay.
"""

import struct
from pathlib import Path

from termite.engine.wire.protocol import launcher_frames
from termite.engine.wire.protocol.fields import pack_fields, pack_numbers
from termite.engine.wire.protocol.launcher_frames import frame
from termite.fuse.sandbox.sandbox_order import SandboxSpec, pack_order

CORPUS = Path(__file__).parent / "corpus"
SPEC = SandboxSpec(
    job=7,
    mount=Path("/scratch/mnt"),
    lower="../real/2:a:.",
    cwd=b"/home/me/p",
    exe=b"gcc",
    search=True,
    argv=(b"gcc", b"-c", b"x.c"),
    env=(b"PATH=/bin", b"A="),
    uid=1000,
    gid=1000,
    umask=0o22,
    stdin_offset=5,
    hostname="home",
)
PLAIN, SMALL_PIECES, ALL_AT_ONCE = 0, 2, 255
PIPE, SOCKET, NULL, BROKEN_OUTPUT, PACKED, IN_A_PLAN = 1, 2, 3, 4, 8, 16  # of targets/conversation.c
IN_A_FILE, TOO_LONG = 0x80, 0x40  # of targets/message.c
IS_32, ADDRESS, HERE, MEMORY = 1, 0x8000, 0x7FFF, b"\xff"  # of targets/traced.c
ELF_HEAD = b"\x7fELF\x02\x01\x01" + b"\0" * 9


def traced_call(number: int, *arguments: int, look: int = 0) -> bytes:
    """Return a call of targets/traced.c. Arguments from ADDRESS on are offsets in the memory."""
    words = [*arguments, *[0] * (6 - len(arguments))]
    return struct.pack("<BH6H", look, number, *words)


def seeds() -> dict[str, dict[str, bytes]]:
    """Return the seeds of each target by name."""
    order = pack_order(SPEC, Path("/scratch/jobs/7"))
    at_terminal = order + pack_numbers(terminals=15, rows=24, columns=80, width=0, height=65535)
    return {
        "fields": {"order": order, "exit": pack_numbers(code=0), "cut": order[:-1], "empty": b"=\0"},
        "order": {
            "usual": order,
            "terminals": at_terminal,
            "twice": order + b"uid=0\0",
            "huge": order + b"nproc=18446744073709551615\0",
        },
        "message": {
            "usual": b"\x02" + order,
            "stdin": b"\x03" + order,
            "too_many": b"\x07" + order,
            "one_too_many": b"\x06" + order,  # for the room of five, which is rounded up to six
            "one_too_many_and_file": bytes([IN_A_FILE + 6]) + order,
            "none": b"\x00" + order,
            "too_long": bytes([TOO_LONG + 2]) + order,
            "file": bytes([IN_A_FILE + 3]) + order,
            "file_and_stdin": bytes([IN_A_FILE + 4]) + order,
        },
        "traced": {
            "open": traced_call(2, ADDRESS) + traced_call(257, HERE, ADDRESS + 5) + MEMORY + b"/a/b\0../c//d\0",
            "by_links": traced_call(257, 3, ADDRESS, look=14 << 3) + MEMORY + b"/proc/self/cwd\0/home/x (deleted)\0",
            "at_the_hole": traced_call(2, ADDRESS) * 2 + MEMORY + b"/dev/fd/5/..",
            "socket": traced_call(42, 3, ADDRESS, 20) + traced_call(102, 3, ADDRESS, look=IS_32) + MEMORY + b"\1\0/s\0",
            "filter": traced_call(317, 1, 0, ADDRESS) + MEMORY + struct.pack("<HxxxxxxQ", 1, 1 << 29) + bytes(8),
        },
        "mark": {
            "wrong": b"\x02/home/you/project/a/b\0/build/project\n",
            "right": b"\x01/build/project/obj\0/build/project\n",
            "empty": b"\x00/a\0",
            "control": b"\x01/a/b\0/\x1b[31m\n",
            "none": b"\xff/a/b/c\0",
        },
        "remove": {"names": b"\x02jobs/1\0jobs/22\0", "cut": b"\x07a\0\0bcdefghijk\0lm"},
        "conversation": conversations(),
        "command_line": {
            "direct": b"\0gcc\0-c\0x.c\0",
            "shell": b"\1-c\0echo x\0",
            "preload": b"\0--preload=make\0--exe=/bin/cc\0--search=0\0--\0cc\0-c\0",
            "notes": b"\0--cmake=compile\0--object=x.o\0gcc\0",
            "wrong": b"\0--nothing\0gcc\0",
        },
        "preload": {
            "elf": b"/lib/libtermite-exec.so:/lib/x.so\0/usr/bin:/bin\0cc\0" + ELF_HEAD,
            "script": b" :/lib/libtermite-exec.so \0/bin::\0./configure\0#! /bin/sh\n",
            "no_interpreter": b"\0\0/bin/sh\0#!\n",
        },
    }


def conversations() -> dict[str, bytes]:
    """Return seeds of what a master sends, each with the two bytes that the target reads first."""
    shown = (
        frame(launcher_frames.STDOUT, b"out\n")
        + frame(launcher_frames.STDERR, b"err\n")
        + frame(launcher_frames.NOTICE, b"termite: x\n")
    )
    ended = frame(launcher_frames.EXIT, pack_numbers(stdin_offset=5, code=3))
    killed = frame(launcher_frames.EXIT, pack_numbers(stdin_taken=2, signal=9))
    asked = frame(launcher_frames.READ, pack_numbers(taken=0, size=100, peek=1)) + frame(
        launcher_frames.READ, pack_numbers(size=0)
    )
    at = frame(launcher_frames.READ, pack_numbers(size=10, offset=3)) + frame(launcher_frames.ALIVE)
    runs = frame(launcher_frames.EXEC, pack_fields([("recurse", b"1"), ("env", b"A=b"), ("env", b"C=")]))
    lines = b"\n\n".join([b"1out", b"Rtaken=3\0size=9\0", b"2err", b"A", b"Ecode=7\0"])
    return {
        "output": bytes([PLAIN, ALL_AT_ONCE]) + shown + ended,
        "pieces": bytes([PLAIN, SMALL_PIECES]) + shown + ended,
        "unwritten": bytes([BROKEN_OUTPUT, ALL_AT_ONCE]) + shown + ended,
        "pipe": bytes([PIPE, ALL_AT_ONCE]) + asked + shown + killed,
        "socket": bytes([SOCKET, SMALL_PIECES]) + asked + killed,
        "file": bytes([PLAIN, SMALL_PIECES]) + at + at + ended,
        "null": bytes([NULL, ALL_AT_ONCE]) + asked + runs,
        "here": bytes([PLAIN, ALL_AT_ONCE]) + shown + runs,
        "lost": bytes([PLAIN, ALL_AT_ONCE]) + shown,
        "packed": bytes([PACKED + PIPE, ALL_AT_ONCE]) + lines,
        "plan": bytes([IN_A_PLAN, ALL_AT_ONCE]) + pack_numbers(stdin_offset=5, code=0),
    }


def main() -> None:
    """Write the seeds that do not exist."""
    for target, inputs in seeds().items():
        directory = CORPUS / target
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in inputs.items():
            if not (directory / name).exists():
                (directory / name).write_bytes(content)


if __name__ == "__main__":
    main()
