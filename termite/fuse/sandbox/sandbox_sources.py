"""Take each job's sandbox from the process that makes sandboxes of its kind.

A job has the network of its lease or that of the worker, and it is traced or not. Each kind has a
process of its own, which starts when it is first needed.
"""

import logging
import os
from pathlib import Path

from termite.engine.errors import Retryable
from termite.engine.model import JobNetwork, TraceMode
from termite.fuse.sandbox.sandbox_order import SandboxSpec
from termite.fuse.sandbox.spawner import Spawner, WaitingSandbox

log = logging.getLogger(__name__)


class SandboxSources:
    """The processes that make the sandboxes of one lease, with the program `binary`.

    `network` is what jobs get that want one. `own` are the ids of the submitter, as in
    `Sandboxes`.
    """

    def __init__(self, binary: Path, scratch: Path, network: JobNetwork, own: tuple[int, ...]) -> None:
        watched = (b"--own=" + b":".join(b"%d" % number for number in own),) if own else ()
        option = b"--private=" + os.fsencode(network.pasta) if network.pasta else b"--network"
        self._plain = Spawner(binary, scratch, *watched)
        self._networked = Spawner(binary, scratch, option, *watched)
        self._tracers = {
            mode: Spawner(binary, scratch, *watched, trace=mode, beside=self._plain)
            for mode in (TraceMode.EXACT, TraceMode.COMPILER)
        }
        self._spawners = (self._plain, self._networked, *self._tracers.values())
        self._last = self._plain  # the next job is probably of the same kind
        self._is_traceless = False  # True if no job can be traced here

    async def wait_ready(self) -> None:
        """Wait until a sandbox is ready. Raises Retryable if none can be made."""
        await self._plain.wait_ready()

    def refill(self, count: int) -> None:
        """Ask for sandboxes of the last job's kind, as `Spawner.refill` does."""
        self._last.refill(count)

    async def take(self, spec: SandboxSpec) -> tuple[WaitingSandbox, TraceMode]:
        """Return a sandbox for a job, and how the job is traced in it.

        A job with a network is not traced, nor is any if the sandbox of a traced job cannot be
        made. Raises Retryable if no sandbox can be made.
        """
        if spec.network:
            return await self._networked.take(), TraceMode.OFF
        if spec.trace and not self._is_traceless:
            self._last = self._tracers[spec.trace]
            try:
                return await self._last.take(), spec.trace
            except Retryable as error:
                self._is_traceless = True
                log.warning("tracing-impossible reason=%r", error.detail)
        self._last = self._plain
        return await self._last.take(), TraceMode.OFF

    def check(self, now_s: float) -> None:
        """Resume or kill the processes that stand still. Call this often while jobs run."""
        for spawner in self._spawners:
            spawner.check(now_s)

    def close(self) -> None:
        """End the processes, and the sandboxes that are ready."""
        for spawner in self._spawners:
            spawner.close()
