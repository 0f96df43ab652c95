"""Answer the control commands about one worker: how it is, and that it drains."""

from contextlib import suppress

import msgspec

from termite.engine.errors import UserError
from termite.engine.fleet.pool import Pool
from termite.engine.fleet.worker_log import read_worker_log
from termite.engine.status.control_requests import AskDrain, AskWorker
from termite.engine.wire.protocol.fleet_messages import MOST_LOG_RECORDS

LONGEST_NAME = 255  # characters, as of a Label


async def answer_drain(pool: Pool, request: AskDrain) -> None:
    """Let a worker take no new jobs, or take them again. Raise UserError if it cannot be asked."""
    _check_name(request.worker)
    await pool.coordinator.drain(request.worker, is_drained=request.drained)


async def answer_about_worker(pool: Pool, request: AskWorker) -> dict[str, object]:
    """Return the report of the worker that a request names.

    The report is that of the coordinator. If this master holds slots of the worker, the log also
    has what it says of this master's jobs. Raise UserError if the worker cannot be asked.
    """
    worker = request.worker
    _check_name(worker)
    report = await pool.coordinator.get_report(worker)
    with suppress(UserError):  # it is not leased
        found = await read_worker_log(pool.leases, worker, 0, MOST_LOG_RECORDS)
        report = msgspec.structs.replace(report, log=found.records)
    return {"report": msgspec.to_builtins(report)}


def _check_name(worker: str) -> None:
    if not 0 < len(worker) <= LONGEST_NAME or not worker.isprintable():
        raise UserError("this control command needs the name of a worker")
