"""The signals that our caller ignores, of those that Python ignores itself.

Python ignores SIGPIPE and SIGXFSZ before it runs any of our code. The program that starts a front
end therefore looks before (native/front_end), and tells us. Nobody else knows: the parent process
may ignore a signal, but not for its children, as Python and Node.js do.
"""

import signal

_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)

ignored: frozenset[int] = frozenset()  # set once, before the front end starts; also has 0


def unignored() -> list[signal.Signals]:
    """Return the signals of which a program that we start must die, as it does without us."""
    return [number for number in _IGNORED_BY_PYTHON if number not in ignored]
