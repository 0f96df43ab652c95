"""The kernel tells holders of a pidfd how a process of somebody else has ended."""

import fcntl
import os
import signal
import subprocess
import sys
from unittest.mock import patch

import pytest

from termite.engine.host.process_exit import ExitUnknown, exit_of


def asked(pidfd: int) -> int | None:
    try:
        return exit_of(pidfd)
    except ExitUnknown:
        pytest.skip("needs Linux 6.15")


@pytest.mark.parametrize("code", ["sys.exit(0)", "sys.exit(7)", "os.kill(os.getpid(), 9)"])
def test_the_exit_is_known_as_soon_as_the_parent_has_waited(code: str) -> None:
    with subprocess.Popen([sys.executable, "-c", f"import os, sys; sys.stdin.read(); {code}"], stdin=-1) as process:
        pidfd = os.pidfd_open(process.pid)
        try:
            assert asked(pidfd) is None, "it runs"
            assert process.stdin is not None
            process.stdin.close()
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
            assert asked(pidfd) is None, "nobody has waited for it"
            ended = process.wait()
            status = asked(pidfd)
            assert status is not None and os.waitstatus_to_exitcode(status) == ended
            assert ended in (0, 7, -signal.SIGKILL)
        finally:
            os.close(pidfd)


@pytest.mark.parametrize("number", [25, 22])
def test_an_old_kernel_is_not_asked_twice(number: int) -> None:
    with patch.object(fcntl, "ioctl", side_effect=OSError(number, "")), pytest.raises(ExitUnknown):
        exit_of(0)
