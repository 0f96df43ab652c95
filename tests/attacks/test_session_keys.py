"""A job looks for the keys of the session in which the worker was started, and for a keyring that all jobs share."""

from dataclasses import replace

import pytest
import trio

from tests.attacks.attackers import HERE, LIMIT_S, WORKERS, attack, place_of, said, verdict
from tests.e2e.mirrors import FakeMaster, Starter, mirror

TICKET = "TICKET-OF-THE-WORKERS-SESSION"


@pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS.keys())
async def test_a_job_has_no_key_of_the_workers_session_and_leaves_none(worker: Starter) -> None:
    worker = replace(worker, through=("/usr/bin/python3", str(HERE / "with_a_key.py"), TICKET))
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        output: list[bytes] = []
        with trio.fail_after(LIMIT_S):
            async with mirror(master, place, worker):
                ran = await attack(master, "use_session_keys.py", output=output)
        print(said(output))
        assert ran.exit.code == 0
        assert verdict(TICKET in said(output), "a key of the worker's session, read by a job") == "HELD"
        assert verdict("done: leave a key" in said(output), "a key left in a keyring that all jobs share") == "HELD"


async def test_the_session_has_that_key_without_a_sandbox() -> None:
    """Else the test above would hold whatever the sandbox does."""
    python = ("/usr/bin/python3", str(HERE / "with_a_key.py"), TICKET, "/usr/bin/python3")
    ran = await trio.run_process([*python, str(HERE / "use_session_keys.py")], capture_stdout=True)
    assert f"the key is {TICKET}" in ran.stdout.decode()
