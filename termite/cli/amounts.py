"""Amounts as people write and read them: numbers, sizes, times.

A function that parses raises ValueError for a text that is no such amount. Its name says what is
wanted, for the error of a wrong flag (parser.py).
"""

import math


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, such as `1 worker` or `2 workers`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def size_text(size_bytes: float) -> str:
    """Return a size in the largest unit in which it is at least 1, such as `1.5 GiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} GiB"


def duration_text(seconds: float) -> str:
    """Return a duration in a unit that suits it: `3 ms`, `1.25 s`, `2 min 5 s` or `1 h 3 min`."""
    if seconds < 0.0995:
        return f"{1000 * seconds:.{0 if seconds >= 0.00995 else 1}f} ms"
    if seconds < 59.95:
        return f"{seconds:.{2 if seconds < 9.995 else 1}f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def parse_port(text: str) -> int:
    """Parse the number of a TCP port; 0 is any free one."""
    port = int(text)
    if not 0 <= port < 65536:
        raise ValueError(text)
    return port


def parse_positive(text: str) -> int:
    """Parse a number of at least 1."""
    number = int(text)
    if not 1 <= number < 2**63:
        raise ValueError(text)
    return number


def parse_count(text: str) -> int:
    """Parse a number of at least 0."""
    number = int(text)
    if not 0 <= number < 2**63:
        raise ValueError(text)
    return number


def parse_seconds(text: str) -> float:
    """Parse a finite number of at least 0."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError(text)
    return number


def parse_size(text: str) -> int:
    """Parse a size such as 500M, 20G or 1048576 into bytes; the units are powers of 1024."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if not (number.isascii() and number.isdigit()):
        raise ValueError(text)
    size_bytes = int(number) << 10 * ("", "K", "M", "G", "T").index(unit)
    return parse_positive(str(size_bytes))


def parse_size_or_none(text: str) -> int:
    """Parse a size; 0 stands for none."""
    return 0 if text == "0" else parse_size(text)


parse_port.__name__ = "a port, from 0 to 65535"
parse_positive.__name__ = "a number of at least 1"
parse_count.__name__ = "a number of at least 0"
parse_seconds.__name__ = "a number of seconds"
parse_size.__name__ = parse_size_or_none.__name__ = "a size, such as 500M or 20G"
