"""Read the machine's memory from /proc/meminfo (proc(5))."""

from pathlib import Path

MEMINFO = Path("/proc/meminfo")


def parse_memory(meminfo: str, field: str) -> int:
    """Return a field of the text of /proc/meminfo in bytes, or 0 if it is not there."""
    for line in meminfo.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def read_memory(field: str) -> int:
    """Return a field of /proc/meminfo in bytes, such as MemTotal or MemAvailable; 0: unknown."""
    return parse_memory(MEMINFO.read_text(), field)
