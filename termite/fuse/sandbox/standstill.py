"""Notice a sandbox whose first process (pid 1) stands still, resume it, and end it in the end.

A job cannot stop its own pid 1: the kernel drops such signals from inside a pid namespace. A
stopped pid 1 was therefore stopped from outside, and by mistake. The command of a job is another
matter: it may stop itself, and then waits as it does on the master's machine.

The check costs two system calls and sends no message. The kernel acknowledges an order: it leaves
the socket's queue when the sandbox reads it.
"""

import contextlib
import logging
import signal
from collections.abc import Callable

from termite.engine.host.process_state import STOPPED, UNINTERRUPTIBLE, children_of, process_state
from termite.fuse.sandbox.server_standstill import has_unread
from termite.fuse.sandbox.spawner import WaitingSandbox

CHECK_S = 0.5  # between two checks; shorter jobs are never checked
SLOW_S = 2.0  # then it is logged
PATIENCE_S = 10.0  # then a sandbox that still stands still is killed
DEATH_S = 5.0  # then a killed sandbox that has not died is left to the kernel (D state)

_STOPPED = "the sandbox was stopped by a signal"
_UNWATCHED = "the process that answers its watched calls was killed"

log = logging.getLogger(__name__)


class StandstillWatch:
    """The watch over the pid 1 of one job.

    `on_kill` is called before pid 1 is killed; it fails the job's requests. `give_up` is called if
    pid 1 does not die even then. `verdict` says why the sandbox was killed; "": it was not.
    """

    def __init__(
        self, job: int, sandbox: WaitingSandbox, on_kill: Callable[[], None], give_up: Callable[[], None]
    ) -> None:
        self.verdict = ""
        self._job = job
        self._sandbox = sandbox
        self._on_kill = on_kill
        self._give_up = give_up
        self._since_s: float | None = None
        self._is_logged = False

    def check(self, now_s: float) -> None:
        """Look at pid 1, and resume or kill it if it stands still. Call this every CHECK_S.

        Kill it at once if nobody answers the watched calls of its job any more.
        """
        found = self._find()
        if not found and not self.verdict:
            self._since_s = None
            return
        if self._since_s is None:
            self._since_s, self._is_logged = now_s, False
        # On a busy machine a sandbox may just be slow to take its job.
        if not self._is_logged and (found == _STOPPED or now_s - self._since_s >= SLOW_S):
            self._is_logged = True
            log.warning("sandbox-stands-still job=%d pid=%d reason=%r", self._job, self._sandbox.pid, found)
        if self.verdict:
            if now_s - self._since_s >= PATIENCE_S + DEATH_S:
                self._give_up()
            return
        self._send(signal.SIGCONT)
        if found == _UNWATCHED:
            self._kill(found)
        elif now_s - self._since_s >= PATIENCE_S:
            self._kill(f"{found} for {PATIENCE_S:.0f} s")

    def _kill(self, verdict: str) -> None:
        self.verdict = verdict
        log.warning("sandbox-killed job=%d pid=%d reason=%r", self._job, self._sandbox.pid, verdict)
        self._on_kill()
        self._send(signal.SIGKILL)

    def _find(self) -> str:
        """Return in which way pid 1 stands still, or "" if it does not."""
        if self._sandbox.watcher.is_gone:
            return _UNWATCHED
        state = process_state(self._sandbox.pid)
        if state in STOPPED:
            return _STOPPED
        if has_unread(self._sandbox.channel):
            return "the sandbox has not taken its job"
        # Behind its command, pid 1 may wait for a slow disk (it syncs the job's files).
        if state == UNINTERRUPTIBLE and not children_of(self._sandbox.pid):
            return "the sandbox has not started its command"
        return ""

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._sandbox.pidfd, number)
