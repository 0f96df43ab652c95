"""Read the end of a log for `termite-ctl logs`: that of a worker, through one of its leases."""

from collections.abc import Iterable

from termite.engine.errors import Retryable, UserError
from termite.engine.fleet.lease import Lease
from termite.engine.nearest_name import nearest_name
from termite.engine.wire.protocol.messages import LogRecords


async def read_worker_log(leases: Iterable[Lease], worker: str, after: int, most: int) -> LogRecords:
    """Return the records that a worker shows. Raise UserError if it is not leased, or fails."""
    by_name = {lease.worker: lease for lease in leases if lease.is_open}
    if worker not in by_name:
        if near := nearest_name(worker, by_name):
            raise UserError(f"there is no worker {worker}: write {near}")
        hint = "a master asks those whose slots it holds: while it builds, and for a while afterwards"
        held = f"this master holds slots of {', '.join(sorted(by_name))}" if by_name else hint
        raise UserError(f"this master holds no slots of a worker {worker}", hint=held)
    try:
        return await by_name[worker].read_log(after, most)
    except Retryable as error:
        raise UserError(f"the worker {worker} does not show its log: {error}") from error
