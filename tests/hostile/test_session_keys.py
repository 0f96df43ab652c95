"""A job looks for keys of the session that started the worker, and for a keyring of all jobs.

Jobs may not use keys at all; so the same is tried from the mirror's namespaces, where nothing
forbids to use them.
"""

import os
import subprocess
from dataclasses import replace

import pytest
import trio

from termite.engine.host.native_programs import native_program
from tests.e2e.mirrors import FakeMaster, Starter, mirror
from tests.hostile.attackers import HERE, LIMIT_S, WITHOUT_LANDLOCK, WORKERS, attack, place_of, said, verdict

TICKET = "TICKET-OF-THE-WORKERS-SESSION"
SESSION = ("/usr/bin/python3", str(HERE / "with_a_key.py"), TICKET)
LOOK = ("/usr/bin/python3", str(HERE / "use_session_keys.py"))

workers = pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS.keys())


def judge(output: str) -> None:
    print(output)
    assert "the key" in output, "the attack has begun"
    assert verdict(TICKET in output, "a key of the worker's session, read by a job") == "HELD"
    assert verdict("done: leave a key" in output, "a key left in a keyring that all jobs share") == "HELD"


@workers
async def test_a_job_has_no_key_of_the_workers_session_and_leaves_none(worker: Starter) -> None:
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        output: list[bytes] = []
        with trio.fail_after(LIMIT_S):
            async with mirror(master, place, replace(worker, through=SESSION)):
                await attack(master, "use_session_keys.py", output=output)
        judge(said(output))


@workers
async def test_without_a_filter_a_job_leaves_no_key_for_a_later_one(worker: Starter) -> None:
    with place_of(worker) as place:
        master = FakeMaster(place / "project")
        left: list[bytes] = []
        found: list[bytes] = []
        with trio.fail_after(LIMIT_S):
            async with mirror(master, place, replace(worker, through=(*WITHOUT_LANDLOCK, "seccomp"))):
                await attack(master, "share_keys.py", "leave", output=left)
                await attack(master, "share_keys.py", "look", output=found)
        print(said(left), said(found))
        assert "leave a key" in said(left) and "search" in said(found), "the attack has begun"
        assert verdict("SECRET" in said(found), "a key that another job has left") == "HELD"


@workers
def test_nor_has_the_mirror(worker: Starter) -> None:
    ids = [f"--uid={worker.uid}", f"--gid={worker.uid}"] if worker.uid else []
    enter = [str(native_program("termite-sandbox")), "enter", *ids, "--"]
    run = subprocess.run(
        [*SESSION, *enter, *LOOK],
        capture_output=True,
        timeout=LIMIT_S,
        user=worker.user,
        group=worker.user,
        extra_groups=[] if worker.user else None,
        check=True,
    )
    judge(os.fsdecode(run.stdout))


def test_the_session_has_that_key_without_a_sandbox() -> None:
    """Else the tests above would hold whatever the sandbox does."""
    assert f"the key is {TICKET}" in subprocess.check_output([*SESSION, *LOOK], timeout=LIMIT_S).decode()
