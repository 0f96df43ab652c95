"""Start BuildGrid, a server of the Remote Execution API by others, if it is installed.

BuildGrid is no part of the set-up, because it brings 200 MB of packages. docs/develop/recall.md
says how to run the tests with it.
"""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.waiting import wait_until

PROGRAM = "bgd"
CONFIGURATION = """
server:
  - !channel
    address: 127.0.0.1:{port}
    insecure-mode: true
description: tests of termite
authorization:
  method: none
monitoring:
  enabled: false
storages:
  - !lru-storage &storage
    size: 512mb
caches:
  - !lru-action-cache &results
    storage: *storage
    max-cached-refs: 10000
    allow-updates: true
    cache-failed-actions: true
instances:
  - name: '{instance}'
    description: all
    services:
      - !action-cache
        cache: *results
      - !cas
        storage: *storage
      - !bytestream
        storage: *storage
thread-pool-size: 20
"""


@contextmanager
def real_server(where: Path, instance: str = "") -> Iterator[int]:
    """Start a server with an empty store, and yield its port. Skip the test if there is none."""
    program = shutil.which(PROGRAM)
    if program is None:
        pytest.skip(f"BuildGrid is not installed: there is no {PROGRAM} in PATH")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    configuration, log = where / "buildgrid.yml", where / "buildgrid.log"
    configuration.write_text(CONFIGURATION.format(port=port, instance=instance))
    with log.open("wb") as output:
        server = subprocess.Popen([program, "server", "start", configuration], stdout=output, stderr=output, cwd=where)
    try:
        wait_until(lambda: _answers(port), "BuildGrid listens", log.read_text)
        yield port
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
