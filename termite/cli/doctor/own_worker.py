"""Run a worker for one job on this machine, with everything that a worker of its own would have."""

import logging
import os
from collections import deque
from dataclasses import replace
from pathlib import Path

import trio

from termite.cli.daemons import default_tmpdir, worker_config, worker_parser
from termite.cli.doctor.finding import Finding, Level, failure_of
from termite.cli.doctor.machine_checks import MACHINE
from termite.cli.doctor.trial_jobs import Patient, TrialTree, try_worker
from termite.engine.errors import UserError, errors_in
from termite.engine.host.log_tail import LogTail
from termite.engine.wire.addresses import INPROC
from termite.engine.worker.mirror_homes import DEFAULT_USER_BASE, MAX_MIRRORS
from termite.engine.worker.worker_daemon import WorkerConfig, serve_worker

START_S = 10.0
LAST_LINES = 3  # of the worker's log, which say why it failed


class LastLines(logging.Handler):
    """The last lines of the log of a worker, which the doctor does not show while all is well."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: deque[str] = deque(maxlen=LAST_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())


async def try_this_machine(directory: Path, trial: TrialTree, log: LastLines) -> list[Finding]:
    """Start a worker below `directory`, run a job on it, and return what was found."""
    secret = os.urandom(32)
    address = f"{INPROC}doctor"
    found: list[Finding] = []
    try:
        config = _config(directory, secret, address)
        async with trio.open_nursery() as nursery:
            with trio.fail_after(START_S):
                await nursery.start(serve_worker, config)
            found = await try_worker(Patient(MACHINE, "doctor", address, 0), secret, trial)
            nursery.cancel_scope.cancel()
    except* (UserError, OSError, trio.TooSlowError) as group:
        first = next(errors_in(group))
        error = first if isinstance(first, UserError) else UserError(str(first) or "a worker could not be started")
        found = [failure_of(MACHINE, "job", error)]
    bad = [finding for finding in found if finding.level is Level.FAILURE]
    return [_explained(finding, log) for finding in bad or found[-1:]]


def _config(directory: Path, secret: bytes, address: str) -> WorkerConfig:
    words = ["--jobs", "1", "--listen", address, "--port", "0", "--name", "doctor", "--coordinator", ""]
    words += ["--log-level", "warning", "--cachedir", str(directory / "cache"), "--tmpdir", str(default_tmpdir())]
    config = worker_config(worker_parser("termite-ctl doctor").parse_flags(words), secret, LogTail())
    if config.users is None:
        return config
    # The last user of root's worker: the first ones run the jobs of a worker that is in use.
    last = DEFAULT_USER_BASE + MAX_MIRRORS - 1
    return replace(config, users=range(last, last + 1))


def _explained(finding: Finding, log: LastLines) -> Finding:
    """Return the finding about a job, with what the worker's log says of its failure."""
    if finding.level is Level.OK:
        return finding
    said = f" ({' | '.join(log.lines)})" if log.lines else ""
    mend = finding.mend or "mend the other faults first, or read the log of a termite-worker that runs here"
    return replace(finding, about="job", text=finding.text + said, mend=mend)
