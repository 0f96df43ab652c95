"""A directory for rounds of the torture test."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.places import IS_ROOT


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """Make a directory where a home is, because jobs do not see the machine's /tmp and /var/tmp."""
    path = Path(tempfile.mkdtemp(prefix="termite-faults-", dir="/home" if IS_ROOT else Path.home()))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
