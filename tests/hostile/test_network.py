"""A master gives a job the network of a worker that does not want to give it."""

import dataclasses
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from termite.engine.errors import Reason, Retryable
from termite.engine.model import JobNetwork
from tests.e2e.mirrors import Starter, mirror
from tests.hostile.masters import STARTERS, HostileMaster, attacked_place

CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5); print('reached')"


@contextmanager
def service() -> Iterator[int]:
    """Listen on the loopback interface of the worker's machine, and yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


@pytest.mark.parametrize("starter", STARTERS)
async def test_a_service_of_the_worker_is_out_of_reach_unless_the_worker_allows_it(starter: Starter) -> None:
    with attacked_place(starter) as base, service() as port:
        words = ("/usr/bin/python3", "-c", CONNECT, str(port))
        master = HostileMaster(base / "project")
        async with mirror(master, base / "place", dataclasses.replace(starter, network=JobNetwork())):
            with pytest.raises(Retryable) as refused:
                await master.run(*words, network=True)
            assert refused.value.reason is Reason.NETWORK_DENIED
            without = await master.run(*words)
            assert without.exit.code == 1, "a job without the network sees its own loopback interface"
        other = HostileMaster(base / "project")
        async with mirror(other, base / "place", dataclasses.replace(starter, network=JobNetwork(is_given=True))):
            assert await other.said(*words, network=True) == b"reached\n", "the attack works where it is allowed"
    print("HELD")
