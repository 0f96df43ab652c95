"""Amounts as people write and read them: numbers, sizes, times.

A function that parses raises ValueError for a text that is no such amount. argparse names the
amount by the function's name.
"""

import math


def size_text(size_bytes: float) -> str:
    """Return a size in the largest unit in which it is at least 1, such as `1.5 GiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} GiB"


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


parse_port.__name__ = "port"
parse_positive.__name__ = parse_count.__name__ = parse_seconds.__name__ = "number"
parse_size.__name__ = parse_size_or_none.__name__ = "size"
