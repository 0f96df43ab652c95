"""Run the build tool of a front end, and end as it did.

A launcher says when the master does not answer. But ninja and `make -O` show what a command prints
only when it has ended, so the front end looks at the master as well.
"""

import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence

from termite.cli.build_commands import callers_signals
from termite.cli.build_commands.build_tools import find_program
from termite.cli.flags import print_line
from termite.engine.errors import UserError
from termite.engine.host.process_state import STOPPED, UNINTERRUPTIBLE, process_state

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
WATCHED = (*ENDING, signal.SIGUSR1, signal.SIGCHLD)
LOOK_S = 5.0  # between two looks at the master
SILENT_S = 30.0  # so long it has stood still when the user is told; native/launcher/silence.c has the same
_BY_KILL = (0, -1)  # si_code of kill and sigqueue; a terminal signals the whole process group itself


class MasterLook:
    """The looks of a build at the process `pid` of its master; 0: it cannot be seen from here."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._looks = 0  # in a row that found it standing still

    def look(self) -> str:
        """Return what to tell the user, or "". Call this every LOOK_S."""
        state = process_state(self._pid) if self._pid else ""
        if not state or state not in STOPPED + UNINTERRUPTIBLE:
            self._looks = 0
            return ""
        self._looks += 1
        if self._looks != SILENT_S / LOOK_S + 1:
            return ""
        why = "waits for a disk" if state == UNINTERRUPTIBLE else "is stopped"
        resumes = "" if state == UNINTERRUPTIBLE else f"kill -CONT {self._pid} resumes it, "
        return (
            f"the master (process {self._pid}, which {why}) has not answered for {SILENT_S:.0f} s; "
            f"{resumes}kill -9 {self._pid} ends the wait"
        )


def run_process(argv: Sequence[str], env: Mapping[str, str], master: int = 0) -> tuple[int, bool]:
    """Run the tool, found in PATH. Return its wait status, and whether the user has stopped it.

    Signals that another process sends to us are passed on to the tool. `master` is the process of
    the master, 0 if there is none.
    """
    is_interrupted, look = False, MasterLook(master)
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    sys.stdout.flush()
    try:
        unignored = callers_signals.unignored()
        child = os.posix_spawn(find_program(argv[0]), list(argv), env, setsigmask=(), setsigdef=unignored)
    except UserError as error:
        print_line("termite", error.message)
        return 127 << 8, False
    except OSError as error:
        print_line("termite", f"{argv[0]}: {error.strerror}")
        return (127 if isinstance(error, FileNotFoundError) else 126) << 8, False
    while True:
        received = signal.sigtimedwait(WATCHED, LOOK_S)
        if received is None:
            if said := look.look():
                print_line("termite", said)
            continue
        if received.si_signo != signal.SIGCHLD:
            is_interrupted |= received.si_signo in ENDING
            if received.si_code in _BY_KILL:
                os.kill(child, received.si_signo)
            continue
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status, is_interrupted or os.WIFSIGNALED(status)


def end_as(status: int) -> int:
    """Return the exit code of a wait status. If a signal killed the tool, die of that signal."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
        os.kill(os.getpid(), number)
    return os.WEXITSTATUS(status)
