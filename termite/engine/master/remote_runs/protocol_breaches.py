"""End the lease of a worker that breaks the protocol, so that its jobs run elsewhere."""

from termite.engine.errors import Reason, RemoteProtocolError, Retryable
from termite.engine.fleet.lease import Lease
from termite.engine.fleet.pool import Pool


class ProtocolBreaches:
    """A context for an attempt of a job: if the worker breaks the protocol in it, the lease ends.

    The attempt then fails with Retryable, as if the worker were gone. A generator would be shorter,
    but slower, and every job that goes to a worker comes here.
    """

    __slots__ = ("_lease", "_pool")

    def __init__(self, pool: Pool, lease: Lease) -> None:
        self._pool, self._lease = pool, lease

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RemoteProtocolError):
            self._pool.retire(self._lease)
            raise Retryable(Reason.BAD_ANSWER, f"{self._lease.worker}: {error}") from error
