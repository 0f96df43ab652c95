"""The jobs of a sweep, one of each kind, and what each of them leaves.

Every job appends a line to `log`, so that a second run is seen. Its inputs have a serial number in
them, so that no content of an earlier job is of use.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.cluster import Tree

STDIN_BYTES = 300_000
BIG_BYTES = 2_500_000
BIG_OUTPUT_BYTES = 300_000

Check = Callable[[Path, str], bool]


@dataclass(frozen=True, slots=True)
class SweepJob:
    """A job of a sweep.

    `script` is run by a shell. `stdout`, `stdin` and `checks` depend on the serial number.
    `is_cold`: the master has no lease, and opens one for the job.
    """

    name: str
    script: str
    stdout: Callable[[str], bytes]
    checks: dict[str, Check]
    code: int = 0
    stderr: bytes = b""
    stdin: Callable[[str], bytes] | None = None
    is_cold: bool = False

    def fill(self, tree: Tree, serial: str) -> None:
        """Make the inputs of the job, and remove everything else."""
        for path in tree.path.iterdir():
            if not path.name.startswith(".termite"):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        tree.write("serial", serial)
        tree.write(".termite-localrc", '[{"Regexp": "^never ", "Local": true}]')  # it is looked at for each job
        tree.write("source/a.c", f"int a_{serial};\n" * 3000)
        tree.write("source/a.h", f"int h_{serial};\n")
        for name in ("d1/f1", "d1/f2", "old", "mode"):
            tree.write(name, serial)
        tree.write("counter", "1\n")
        tree.write("text", "one\n")
        tree.write("change.diff", DIFF)
        tree.mkdir("closed")

    def trouble(self, tree: Path, serial: str) -> Iterator[str]:
        """Yield what is not as one run of the job leaves it."""
        for name, check in {"log": is_logged_once, **self.checks}.items():
            is_right = False
            with suppress(OSError):
                is_right = check(tree, serial)
            if not is_right:
                yield name

    def twice(self, tree: Path) -> Iterator[str]:
        """Yield what shows that the job ran more than once."""
        for name, most in (("log", ("x\n",)), ("counter", ("1\n", "2\n")), ("text", ("one\n", "one\ntwo\n"))):
            with suppress(FileNotFoundError):
                if (tree / name).read_text() not in most:
                    yield name


def is_logged_once(tree: Path, serial: str) -> bool:
    return (tree / "log").read_text() == "x\n"


def _is_compiled(tree: Path, serial: str) -> bool:
    return (tree / "out/a.o").read_text() == f"int h_{serial};\n" + f"int a_{serial};\n" * 3000


def _text(serial: str, size: int) -> bytes:
    return (f"{serial}\n".encode() * (size // len(serial) + 1))[:size]


# Every part of it does something else when it is run a second time.
ONCE = """
echo x >>log; n=$(cat counter); echo $((n+1)) >counter; mv d1 d2; mkdir n; ln -s log n/s; ln log n/h; mkfifo n/p
rm old; ar q lib.a d2/f1 2>/dev/null; chmod 750 mode; mkdir -p closed/deep; patch -s text <change.diff
"""
DIFF = "--- text\n+++ text\n@@ -1 +1,2 @@\n one\n+two\n"
ONCE_CHECKS: dict[str, Check] = {
    "counter": lambda tree, serial: (tree / "counter").read_text() == "2\n",
    "d2": lambda tree, serial: (
        {path.name: path.read_text() for path in (tree / "d2").iterdir()} == {"f1": serial, "f2": serial}
    ),
    "d1": lambda tree, serial: not (tree / "d1").exists(),
    "symlink": lambda tree, serial: os.readlink(tree / "n/s") == "log",
    "link": lambda tree, serial: (tree / "n/h").samefile(tree / "log"),
    "fifo": lambda tree, serial: (tree / "n/p").is_fifo(),
    "old": lambda tree, serial: not (tree / "old").exists(),
    "mode": lambda tree, serial: (tree / "mode").stat().st_mode & 0o777 == 0o750,
    "deep": lambda tree, serial: (tree / "closed/deep").is_dir(),
    "archive": lambda tree, serial: (tree / "lib.a").read_bytes().count(b"f1/") == 1,
    "text": lambda tree, serial: (tree / "text").read_text() == "one\ntwo\n",
}

JOBS = {
    job.name: job
    for job in (
        SweepJob(
            "compile",
            "mkdir out; cat source/a.h source/a.c >out/a.o; echo x >>log; echo compiled $(cat serial)",
            lambda serial: f"compiled {serial}\n".encode(),
            {"out/a.o": _is_compiled},
        ),
        SweepJob(
            "append",
            ONCE + "echo done $(cat serial)",
            lambda serial: f"done {serial}\n".encode(),
            ONCE_CHECKS,
        ),
        SweepJob(
            "stdin",
            "cat >copy; echo x >>log; wc -c <copy",
            lambda serial: f"{STDIN_BYTES}\n".encode(),
            {"copy": lambda tree, serial: (tree / "copy").read_bytes() == _text(serial, STDIN_BYTES)},
            stdin=lambda serial: _text(serial, STDIN_BYTES),
        ),
        SweepJob(
            "big",
            f"yes $(cat serial) | head -c {BIG_BYTES} >big; echo x >>log; head -c {BIG_OUTPUT_BYTES} big",
            lambda serial: _text(serial, BIG_OUTPUT_BYTES),
            {"big": lambda tree, serial: (tree / "big").read_bytes() == _text(serial, BIG_BYTES)},
        ),
        SweepJob("fail", ONCE + "echo oops >&2; exit 7", lambda serial: b"", ONCE_CHECKS, 7, b"oops\n"),
        SweepJob(
            "cold",
            ONCE + "cat source/a.c >copy; echo done $(cat serial)",
            lambda serial: f"done {serial}\n".encode(),
            ONCE_CHECKS,
            is_cold=True,
        ),
    )
}
