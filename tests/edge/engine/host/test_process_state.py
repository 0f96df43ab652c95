"""The state of a process is read whatever name it has given itself."""

import subprocess
import sys

import pytest

from termite.engine.host.process_state import GONE, children_of, process_state

NAMED = """
import sys
open('/proc/self/comm', 'wb').write(bytes.fromhex(sys.argv[1]))
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.attack
@pytest.mark.parametrize("name", [b"\xff\xfe", b") Z 1 (", b"a\x0bb\r", "a\u2028b".encode()])
def test_the_state_of_a_process_does_not_depend_on_its_name(name: bytes) -> None:
    command = [sys.executable, "-c", NAMED, name.hex()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        assert process_state(process.pid) in ("R", "S")
        assert children_of(process.pid) == []
        process.stdin.close()
    assert process_state(process.pid) == GONE
