"""Know the programs whose output changes in time, though a second later it may be the same.

A date with the day, or the number of users who are logged in: a second run that is equal proves
nothing. Results of commands that execute such a program are never stored.
"""

import re
from collections.abc import Iterable, Sequence

_CLOCKS = re.compile(
    rb"date|uuidgen|hostname|hostid|hostnamectl|ps|top|free|uptime|who|w|users|last|vmstat|iostat|pgrep|pidof|lsof|ss"
    rb"|netstat|ip|ping|curl|wget|ssh|scp|rsync|systemctl|journalctl|dmesg|df|cal|ncal|at|make|gmake|ninja|ninja-build"
)
# date(1): with one of these, it prints the time of a file, or a given one.
_FIXED_DATE = re.compile(rb"-r|-r.+|--reference=.*|-d@.*|--date=@.*|@\d+")


def find_clock(argv: Sequence[bytes], tools: Iterable[bytes]) -> bytes:
    """Return a program among the executed ones that reads a clock or the like, or b"".

    `tools` are the paths of programs, and the names by which they were executed: a link with the
    name date may lead to a program that has many names. The first word of the command counts, too.
    """
    for path in (*tools, *(word.lstrip(b"/") for word in argv[:1])):
        name = path.rpartition(b"/")[2]
        if _CLOCKS.fullmatch(name) and not (name == b"date" and _has_fixed_date(argv)):
            return path
    return b""


def _has_fixed_date(argv: Sequence[bytes]) -> bool:
    """Return whether the command is a date(1) that does not ask for the present time."""
    is_date = bool(argv) and argv[0].rpartition(b"/")[2] == b"date"
    return is_date and any(_FIXED_DATE.fullmatch(word) for word in argv[1:])
