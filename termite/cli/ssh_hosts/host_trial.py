"""Wait until the worker of a host is registered, and let it run one small job from here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from termite.cli.doctor.finding import Finding, Level
from termite.cli.doctor.trial_jobs import Patient, trial_tree, try_worker
from termite.cli.doctor.trial_place import trial_place
from termite.engine.errors import RemoteProtocolError, Retryable, UserError
from termite.engine.fleet.coordinator import COORDINATOR_PORT, coordinator_error_text
from termite.engine.fleet.coordinator_dial import dial_coordinator, refuse_requests
from termite.engine.wire.addresses import join_address, split_address
from termite.engine.wire.identity import read_secret
from termite.engine.wire.protocol.fleet_messages import ListedWorker, ListWorkers, Workers
from termite.engine.wire.protocol.messages import PROTOCOL
from termite.engine.wire.transport import Connection

CONNECT_S = 10.0
LIST_S = 40.0  # a list that has not changed is answered after 30 s


@dataclass(frozen=True, slots=True)
class FarmOfHost:
    """The farm to which the worker of a host belongs, as it is reached from here."""

    host: str
    port: int
    secret: bytes

    @property
    def text(self) -> str:
        """The address of the coordinator."""
        return join_address(self.host, self.port)


def read_farm(coordinator: str, secret: Path) -> FarmOfHost:
    """Return the farm that flags name. Raise UserError if the secret cannot be read."""
    host, port = split_address(coordinator, COORDINATOR_PORT)
    return FarmOfHost(host or "localhost", port, read_secret(secret))


@dataclass(frozen=True, slots=True)
class TriedWorker:
    """A worker that was found in the list of its farm, and what its job has shown."""

    listed: ListedWorker
    finding: Finding


def check_farm_answers(farm: FarmOfHost) -> None:
    """Raise UserError if the coordinator does not answer, or has another secret or version."""

    async def check() -> None:
        async with _connected(farm) as connection:
            await connection.request(ListWorkers(PROTOCOL, 0), timeout_s=CONNECT_S)

    trio.run(check)


def try_worker_of(farm: FarmOfHost, name: str, limit_s: float) -> TriedWorker | None:
    """Wait for the worker `name`, and let it run a job.

    Return None if it does not register within `limit_s`. Raise UserError if the coordinator does
    not answer, or if the job fails.
    """
    listed = trio.run(_wait_for_worker, farm, name, limit_s)
    if listed is None:
        return None
    host, port = split_address(listed.address, 0)
    try:
        with trial_place() as directory, trial_tree(directory / "tree") as trial:
            patient = Patient(f"worker {name}", name, host, port, listed.draining)
            found = trio.run(try_worker, patient, farm.secret, trial)
    except OSError as error:
        raise UserError(f"no job can be tried: {error}") from error
    for finding in found:
        if finding.level is Level.FAILURE:
            raise UserError(f"worker {name}: {finding.text}", hint=finding.mend)
    return TriedWorker(listed, found[-1])


async def _wait_for_worker(farm: FarmOfHost, name: str, limit_s: float) -> ListedWorker | None:
    version = 0
    with trio.move_on_after(limit_s):
        async with _connected(farm) as connection:
            while True:
                answer = await connection.request(ListWorkers(PROTOCOL, version), timeout_s=LIST_S)
                if not isinstance(answer, Workers):
                    raise UserError(f"a coordinator answered {type(answer).__name__}", hint="see its version")
                version = answer.version
                for worker in answer.workers:
                    if worker.name == name:
                        return worker
    return None


@asynccontextmanager
async def _connected(farm: FarmOfHost) -> AsyncIterator[Connection]:
    try:
        async with dial_coordinator(
            (farm.host, farm.port), farm.secret, "add", refuse_requests, CONNECT_S
        ) as connection:
            yield connection
    except Retryable as error:
        raise UserError(
            f"the coordinator does not answer: {coordinator_error_text(error)}",
            hint="start termite-coordinator, and name its machine with -coordinator",
        ) from error
    except RemoteProtocolError as error:
        raise UserError(f"the coordinator answers what termite does not know: {error}", hint="see its log") from error
