"""Waiting for descriptors, whatever their numbers are."""

import fcntl
import os
import resource

import pytest

from termite.engine.loop.readiness import wait_until_readable

ABOVE = 1024  # of these numbers `select` knows nothing


def test_a_descriptor_with_a_high_number_is_waited_for() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard <= ABOVE:
        pytest.skip(f"no more than {hard} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, ABOVE + 1), hard))
    end, other_end = os.pipe()
    high = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, ABOVE)
    try:
        assert wait_until_readable([high, end], 0) == []
        os.write(other_end, b"x")
        assert sorted(wait_until_readable([high, end], 0)) == [end, high]
        assert os.read(high, 1) == b"x"
        os.close(other_end)
        other_end = -1
        assert wait_until_readable([high]) == [high]
    finally:
        for fd in (end, high, other_end):
            if fd >= 0:
                os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
