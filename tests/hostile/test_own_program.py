"""A script that begins with #!/proc/self/exe runs the worker's own program inside a job.

The job then tries to change the file of this program.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from termite.engine.host.native_programs import native_program
from tests.e2e.mirrors import FakeMaster, Starter, mirror
from tests.hostile.attackers import HERE, LIMIT_S, WORKERS, place_of, said, verdict

workers = pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS.keys())


def own_copy(worker: Starter, place: Path) -> Path:
    """Return a copy of the program that belongs to the worker's user, as in an installation."""
    directory = place / "bin"
    directory.mkdir()
    program = Path(shutil.copy(native_program("termite-sandbox"), directory / "termite-sandbox"))
    for path in (directory, program):
        os.chown(path, worker.owner(), worker.owner())
    program.chmod(0o755)
    return program


def look(program: Path) -> tuple[int, int, list[str], bytes]:
    status = program.stat()
    return status.st_mode, status.st_mtime_ns, os.listxattr(program), program.read_bytes()


async def attack(place: Path, worker: Starter, program: Path) -> str:
    """Return what the job says. Fails if it did not get as far as to the program's file."""
    master = FakeMaster(place / "project")
    master.uid = master.gid = 1000
    script = place / "project" / "--"  # ends the options of the program
    script.write_text("#!/proc/self/exe enter\n")
    script.chmod(0o755)
    output: list[bytes] = []
    with trio.fail_after(LIMIT_S):
        async with mirror(master, place, worker):
            text = (HERE / "change_own_program.py").read_text()
            ran = await master.run("--", "/usr/bin/python3", "-c", text, output=output, exe=b"--", search=False)
    print(ran.exit, said(output))
    assert "done: read" in said(output), "the attack has begun"
    return said(output)


@workers
async def test_a_job_cannot_change_the_program_that_made_it(worker: Starter) -> None:
    with place_of(worker) as place:
        program = own_copy(worker, place)
        before = look(program)
        output = await attack(place, replace(worker, program=program), program)
        assert verdict(look(program) != before, "the worker's own program, changed by a job") == "HELD"
        assert "could not: chmod Read-only file system" in output, "it is behind a read-only mount"


@workers
async def test_nor_where_no_mount_protects_it(worker: Starter) -> None:
    """Another program has made the mirror's namespaces: what it has protected is its own file."""
    with place_of(worker) as place:
        program = own_copy(worker, place)
        before = look(program)
        output = await attack(place, replace(worker, sandbox=program), program)
        assert verdict(look(program) != before, "the worker's own program, changed by a job") == "HELD"
        assert "done: truncate" not in output and "done: write" not in output, "it is a sealed copy"
