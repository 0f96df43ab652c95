"""Find out whether this machine could execute a command at all.

A command that cannot be executed does nothing here. Therefore it may be tried even if the user
forbids local runs: it then fails with the words and the code of a plain build.
"""

import os
import stat
from collections.abc import Iterator

from termite.engine.look_errors import is_answer
from termite.engine.model import Invocation
from termite.engine.script_heads import SCRIPT_HEAD_BYTES, script_interpreter

_MAX_INTERPRETERS = 5  # a script may have a script as its interpreter; see execve(2)


def is_startable(invocation: Invocation) -> bool:
    """Return whether the launcher would find a program to execute. This looks at the disk."""
    return any(_is_program(os.path.join(invocation.cwd, path), invocation.cwd) for path in _places(invocation))


def _places(invocation: Invocation) -> Iterator[str]:
    exe = invocation.exe
    if not invocation.search or "/" in exe:
        yield exe
        return
    for place in invocation.env.get("PATH", "/bin:/usr/bin").split(":"):
        yield os.path.join(place, exe)


def _is_program(path: str, cwd: str) -> bool:
    """Return whether a file may be executed, and so may the interpreters that scripts name.

    Return True as well if somebody has to try it to know.
    """
    for _ in range(_MAX_INTERPRETERS):
        try:
            if not stat.S_ISREG(os.stat(path).st_mode) or not os.access(path, os.X_OK):
                return False
        except ValueError:  # no path can have this name
            return False
        except OSError as error:
            return not is_answer(error)
        interpreter = _interpreter_of(path)
        if interpreter is None:
            return True
        path = os.path.join(cwd, interpreter)
    return True


def _interpreter_of(path: str) -> str | None:
    """Return the interpreter that a script names, or None for any other file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        head = os.read(fd, SCRIPT_HEAD_BYTES)
    except OSError:
        return None
    finally:
        os.close(fd)
    return os.fsdecode(script_interpreter(head)) or None
