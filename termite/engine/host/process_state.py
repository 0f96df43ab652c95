"""Read from /proc whether a process stands still."""

from pathlib import Path

STOPPED = "Tt"  # by a signal, by a debugger
UNINTERRUPTIBLE = "D"  # in the kernel, mostly waiting for a disk
GONE = "X"


def process_state(pid: int) -> str:
    """Return the letter of the state of a process (proc(5)), or GONE."""
    try:
        # The name of the program is there, too, and may have any bytes.
        return chr(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2][1])
    except (OSError, IndexError):
        return GONE


def children_of(pid: int) -> list[int]:
    """Return the pids of the children of a process's first thread; [] if it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
