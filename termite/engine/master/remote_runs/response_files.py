"""Read the options that a command of a compiler has in files (`gcc @flags`)."""

import os
import re
import stat

from termite.engine.model import Command
from termite.engine.paths import is_inside

MAX_FILES = 8  # of one command, those that other ones name included
MAX_BYTES = 64 * 1024  # of one file; options for the processor stand in front of a list of objects

_COMPILER = re.compile(
    r"(?<![\w.+-])(?:[\w.]+-)*(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+|gfortran|rustc|ic[cx]|icpx|ifx|nvcc?|nvc\+\+)"
    r"(?:-[\d.]+)?(?![\w.+-])"
)
_NAMED = re.compile(r"(?:^|(?<=[\s'\"]))@([^\s'\";|&<>()]+)")


def options_in_files(command: Command, root: str) -> str:
    """Return the text of the response files that a command of a compiler names, or "".

    Only files of the tree at `root` count. One that cannot be read has no options.
    """
    if "@" not in command.text or not _COMPILER.search(command.text):
        return ""
    found: dict[str, str] = {}
    waiting = _NAMED.findall(command.text)
    while waiting and len(found) < MAX_FILES:
        path = os.path.normpath(os.path.join(command.cwd, waiting.pop(0)))
        if path not in found and is_inside(path, root):
            found[path] = _read(path)
            waiting += _NAMED.findall(found[path])
    return "\n".join(found.values())


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # the compiler says so as well
        return ""
    try:
        return os.read(fd, MAX_BYTES).decode(errors="replace") if stat.S_ISREG(os.fstat(fd).st_mode) else ""
    except OSError:  # the same
        return ""
    finally:
        os.close(fd)
