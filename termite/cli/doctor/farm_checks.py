"""Check the farm: the coordinator, the list of workers, and each worker by a job."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import time_ns

import trio

from termite import __version__
from termite.cli.doctor.finding import Finding, Level
from termite.cli.doctor.trial_jobs import (
    ANSWER_S,
    CONNECT_S,
    Patient,
    TrialTree,
    clock_finding,
    reach_mend,
    refusal_finding,
    release_finding,
    try_worker,
)
from termite.cli.written_files.host_list import AddedHost, added_hosts
from termite.engine.errors import RemoteProtocolError, TermiteError, UserError
from termite.engine.fleet.coordinator_dial import dial_coordinator, refuse_requests
from termite.engine.host.machine import read_facts
from termite.engine.wire.addresses import join_address, split_address
from termite.engine.wire.protocol.fleet_messages import ListedWorker, ListWorkers, Workers
from termite.engine.wire.protocol.messages import PROTOCOL, Ping, Pong
from termite.engine.wire.transport import Connection

AT_ONCE = 32  # workers that are tried side by side

Note = Callable[[Finding], None]


@dataclass(frozen=True, slots=True)
class Farm:
    """The coordinator to ask, and the secret of the cluster."""

    host: str
    port: int
    secret: bytes

    @property
    def area(self) -> str:
        """The name of the coordinator in findings."""
        return f"coordinator {join_address(self.host, self.port)}"


async def check_farm(farm: Farm, trial: TrialTree, note: Note) -> None:
    """Check the coordinator, then all workers side by side. `note` gets each finding."""
    workers = await _list_workers(farm, note)
    if workers is None:
        return
    for finding in judge_list(farm.area, workers, read_facts().architecture):
        note(finding)
    for finding in judge_added_hosts(join_address(farm.host, farm.port), added_hosts(), workers):
        note(finding)
    room = trio.CapacityLimiter(AT_ONCE)

    async def check(worker: ListedWorker) -> None:
        async with room:
            host, port = split_address(worker.address, 0)
            patient = Patient(f"worker {worker.name}", worker.name, host, port, worker.draining)
            for finding in await try_worker(patient, farm.secret, trial):
                note(finding)

    async with trio.open_nursery() as nursery:
        for worker in workers:
            nursery.start_soon(check, worker)


async def _list_workers(farm: Farm, note: Note) -> tuple[ListedWorker, ...] | None:
    """Return the workers that the coordinator knows, or None if it does not say."""
    area, address = farm.area, Patient(farm.area, "coordinator", farm.host, farm.port)
    try:
        with trio.move_on_after(ANSWER_S) as patience:
            place = (farm.host, farm.port)
            async with dial_coordinator(place, farm.secret, "doctor", refuse_requests, CONNECT_S) as connection:
                patience.deadline += ANSWER_S
                note(Finding(area, "reach", Level.OK, "it answers, and has the same secret"))
                await _check_clock(area, connection, note)
                listed = await connection.request(ListWorkers(PROTOCOL, 0), timeout_s=CONNECT_S)
                if isinstance(listed, Workers):
                    if listed.release not in ("", __version__):
                        note(release_finding(area, listed.release))
                    return listed.workers
                raise RemoteProtocolError(f"it answered {type(listed).__name__}")
        error: TermiteError = UserError(f"it accepts connections, and does not answer in {ANSWER_S:.0f} s")
    except (TermiteError, RemoteProtocolError) as raised:
        error = raised
    note(_coordinator_failure(area, address, error))
    return None


async def _check_clock(area: str, connection: Connection, note: Note) -> None:
    asked_ns = time_ns()
    pong = await connection.request(Ping(), timeout_s=CONNECT_S)
    if isinstance(pong, Pong):
        note(clock_finding(area, (asked_ns + time_ns()) // 2 - pong.clock_ns))


def _coordinator_failure(area: str, address: Patient, error: TermiteError) -> Finding:
    start = f"on {address.host}: termite-coordinator -port {address.port} -secret FILE"
    if isinstance(error, UserError):
        return refusal_finding(area, error, "reach", start)
    return Finding(area, "reach", Level.FAILURE, str(error), f"{start}; {reach_mend(address, error)}")


def judge_list(area: str, workers: tuple[ListedWorker, ...], architecture: str) -> Iterator[Finding]:
    """Yield the findings about the list of a coordinator."""
    if not workers:
        mend = "on each worker: termite-worker -coordinator HOST -secret FILE"
        yield Finding(area, "workers", Level.FAILURE, "no worker is registered", mend)
        return
    slots = sum(worker.slots for worker in workers)
    yield Finding(area, "workers", Level.OK, f"registered workers: {len(workers)}, with {slots} slots")
    for worker in workers:
        name = f"worker {worker.name}"
        if worker.rival:
            text = f"two workers have this name: {worker.address} and {worker.rival}; each replaces the other"
            yield Finding(name, "name", Level.FAILURE, text, "restart one of them with termite-worker -name ANOTHER")
        if worker.draining:
            mend = f"termite-ctl undrain {worker.name} -coordinator HOST -secret FILE"
            yield Finding(name, "drains", Level.WARNING, "it takes no new jobs", mend)
        theirs = worker.machine.architecture
        if theirs and theirs != architecture:
            text = f"its machine is {theirs}, this one is {architecture}: it gets no commands of this machine"
            yield Finding(name, "architecture", Level.WARNING, text, "use it from a machine of its own kind")


def judge_added_hosts(
    coordinator: str, hosts: tuple[AddedHost, ...], workers: tuple[ListedWorker, ...]
) -> Iterator[Finding]:
    """Yield a failure for each host that was added to this farm, and is not in its list."""
    names = {worker.name for worker in workers}
    for host in hosts:
        if host.coordinator == coordinator and host.name not in names:
            text = "you have added this host, and its worker is not registered"
            again = f"termite-ctl upgrade {host.address}"
            if not host.flags:
                text = "adding this host was begun, and has not ended"
                again = f"if no termite-ctl adds it now: termite-ctl remove {host.address}, and add it again"
            mend = f"{again}; if it is gone: termite-ctl remove -forget {host.address}"
            yield Finding(f"host {host.address}", "added", Level.FAILURE, text, mend)
