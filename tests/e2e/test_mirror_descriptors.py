"""A mirror that may open few files asks for fewer slots, or refuses the lease with a line."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.engine.errors import Reason, UserError, errors_in
from tests.e2e.mirror_places import NOBODY, mirror_place
from tests.e2e.mirrors import FakeMaster, Starter, mirror

USERS = [None, NOBODY] if os.getuid() == 0 else [None]


@pytest.fixture
def place() -> Iterator[Path]:
    with mirror_place() as path:
        yield path


@pytest.fixture
def master(place: Path) -> FakeMaster:
    return FakeMaster(place / "project")


def limited(files: int, user: int | None) -> Starter:
    return Starter(user=user, through=("prlimit", f"--nofile={files}:{files}"))


@pytest.mark.parametrize("user", USERS)
async def test_it_asks_for_as_many_slots_as_it_has_descriptors_for(
    place: Path, master: FakeMaster, user: int | None
) -> None:
    async with mirror(master, place, limited(90, user)) as running:
        asked = next(line["lease"] for line in running.lines if "lease" in line)
        assert 1 <= asked < 4, running.lines
        assert await master.said("echo", "x") == b"x\n"


@pytest.mark.parametrize("user", USERS)
async def test_it_refuses_the_lease_if_no_job_fits(place: Path, master: FakeMaster, user: int | None) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with mirror(master, place, limited(36, user)):
            raise AssertionError
    (error,) = errors_in(caught.value)
    assert isinstance(error, UserError) and error.reason is Reason.NO_RESOURCES
    assert "too few descriptors for a job" in str(error) and "of 36 files are open" in str(error)
