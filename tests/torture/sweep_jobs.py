"""The jobs of a sweep, one of each kind, and what each of them leaves.

Every job appends a line to `log`, so that a second run is seen. Its inputs have a serial number in
them, so that no content of an earlier job is of use.
"""

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
        tree.write("source/a.c", f"int a_{serial};\n" * 3000)
        tree.write("source/a.h", f"int h_{serial};\n")
        tree.write("d1/f", serial)
        tree.write("counter", "1\n")
        tree.write("old", serial)

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
        for name, most in (("log", ("x\n",)), ("counter", ("1\n", "2\n"))):
            with suppress(FileNotFoundError):
                if (tree / name).read_text() not in most:
                    yield name


def is_logged_once(tree: Path, serial: str) -> bool:
    return (tree / "log").read_text() == "x\n"


def _is_compiled(tree: Path, serial: str) -> bool:
    return (tree / "out/a.o").read_text() == f"int h_{serial};\n" + f"int a_{serial};\n" * 3000


def _is_moved(tree: Path, serial: str) -> bool:
    is_counted = (tree / "counter").read_text() == "2\n"
    is_gone = not (tree / "d1").exists() and not (tree / "old").exists()
    return is_counted and is_gone and (tree / "d2/f").read_text() == serial and (tree / "n").is_dir()


def _text(serial: str, size: int) -> bytes:
    return (f"{serial}\n".encode() * (size // len(serial) + 1))[:size]


APPEND = "echo x >>log; n=$(cat counter); echo $((n+1)) >counter; mv d1 d2; mkdir n; rm old; "

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
            APPEND + "echo done $(cat serial)",
            lambda serial: f"done {serial}\n".encode(),
            {"effects": _is_moved},
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
        SweepJob("fail", APPEND + "echo oops >&2; exit 7", lambda serial: b"", {"effects": _is_moved}, 7, b"oops\n"),
        SweepJob(
            "cold",
            APPEND + "cat source/a.c >copy; echo done $(cat serial)",
            lambda serial: f"done {serial}\n".encode(),
            {"effects": _is_moved},
            is_cold=True,
        ),
    )
}
