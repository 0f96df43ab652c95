"""Read the end of a log for `termite-ctl logs`: that of a worker, through one of its leases."""

from collections.abc import Iterable

from termite.engine.errors import Retryable, UserError
from termite.engine.fleet.lease import Lease
from termite.engine.nearest_name import wrong_name
from termite.engine.wire.protocol.messages import LogRecords


async def read_worker_log(leases: Iterable[Lease], worker: str, after: int, most: int) -> LogRecords:
    """Return the records that a worker shows. Raise UserError if it is not leased, or fails."""
    by_name = {lease.worker: lease for lease in leases if lease.is_open}
    if worker not in by_name:
        near = wrong_name("worker", worker, by_name, "termite-ctl status")
        raise UserError(
            f"{near.message}, whose slots this master holds",
            hint=near.hint or "a master holds slots while it builds, and for a while afterwards",
        )
    try:
        return await by_name[worker].read_log(after, most)
    except Retryable as error:
        raise UserError(f"the worker {worker} does not show its log: {error}") from error
