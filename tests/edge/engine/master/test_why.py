"""`termite-ctl why` says of a command where the master would run it, in the same environment."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from termite.cli.subcommands.builds.why import why_lines
from termite.engine.decide.short_commands import MIN_SAMPLES
from termite.engine.errors import ExitCode, Reason
from termite.engine.master.control_commands import ControlCommands, Sessions
from termite.engine.status.control_requests import AskWhy, ControlAnswer, Vantage
from termite.engine.wire.protocol import launcher_frames
from tests.edge.engine.master.test_run_job import SEEN, World, ran, script, wrote

COMMAND = ("cp", "a", "$D")
PRIVATE = ("cat", "/home/u/private/x")
RAN_HERE = (launcher_frames.EXEC, b"recurse=0\0")
REMOTE, LOCAL = "remote", "local, whatever a rule says"


async def why(world: World, *argv: str, seen: Mapping[str, bytes] = SEEN, **env: str) -> list[str]:
    """Return the lines that `termite-ctl why` prints of a command."""
    vantage = {name: text.decode() for name, text in seen.items()}
    asked = AskWhy([*argv], env, "", {})
    asked.cwd, asked.vantage = "/", Vantage(**vantage)
    world.master.pool.fleet = SimpleNamespace(workers=())  # type: ignore[misc, assignment]
    with ControlCommands(world.master, Sessions(lambda: None)).session() as answer:
        return why_lines(cast(ControlAnswer, await answer(asked)))


def place_of(lines: list[str]) -> str:
    return next(line.removeprefix("place").strip() for line in lines if line.startswith("place"))


@pytest.mark.logs("job-fell-back")
@pytest.mark.parametrize(("local", "place"), [("", LOCAL), ("never", REMOTE)])
async def test_a_command_whose_result_was_refused_runs_where_why_says(tmp_path: Path, local: str, place: str) -> None:
    """The user forbids local runs without a rule: the command goes to a worker, and fails there."""
    world = World(tmp_path, wrote(b"srv/x/a"), wrote(b"srv/x/a"))
    await world.say(*COMMAND, D="/srv/x")
    lines = await why(world, *COMMAND, D="/srv/x", TERMITE_LOCAL=local)
    assert place_of(lines) == place
    assert (f"reason     {Reason.WRITES_OUTSIDE.words}: /srv/x" in lines) == (place == LOCAL)
    world.steps.clear()
    told = await world.say(*COMMAND, D="/srv/x", TERMITE_LOCAL=local)
    assert ("run on w1" in world.steps) == (place == REMOTE)
    assert told[-1] == (RAN_HERE if place == LOCAL else (launcher_frames.EXIT, f"code={ExitCode.NOWHERE}\0".encode()))


@pytest.mark.parametrize(("local", "place"), [("", LOCAL), ("never", REMOTE)])
async def test_a_command_that_names_a_private_path_runs_where_why_says(tmp_path: Path, local: str, place: str) -> None:
    world = World(tmp_path, script(end=ran()))
    lines = await why(world, *PRIVATE, TERMITE_LOCAL=local)
    assert place_of(lines) == place
    assert (f"reason     {Reason.NAMES_PRIVATE.words}: /home/u/private" in lines) == (place == LOCAL)
    told = await world.say(*PRIVATE, TERMITE_LOCAL=local)
    assert (told[-1] == RAN_HERE) == (place == LOCAL)


@pytest.mark.parametrize(("local", "place"), [("", "local while a core is free, else remote"), ("never", REMOTE)])
async def test_a_short_command_runs_where_why_says(tmp_path: Path, local: str, place: str) -> None:
    world = World(tmp_path, *(MIN_SAMPLES + 1) * [script(end=ran())])
    for _ in range(MIN_SAMPLES):
        assert (await world.say("sed", TERMITE_LOCAL=""))[-1] == (launcher_frames.EXIT, b"code=0\0")
    assert place_of(await why(world, "sed", TERMITE_LOCAL=local)) == place
    told = await world.say("sed", TERMITE_LOCAL=local)
    assert (told[-1] == RAN_HERE) == (place != REMOTE)


@pytest.mark.logs("job-fell-back")
@pytest.mark.parametrize(("local", "place"), [("", LOCAL), ("never", "nowhere: TERMITE_LOCAL=never forbids to run it")])
async def test_a_command_from_another_host_runs_where_why_says(tmp_path: Path, local: str, place: str) -> None:
    world, seen = World(tmp_path, script(end=ran())), {**SEEN, "host": b"another 6.1 i686"}
    lines = await why(world, "gcc", seen=seen, TERMITE_LOCAL=local)
    assert place_of(lines) == place
    assert lines[-1] == f"reason     {Reason.OTHER_HOST.words}"
    async with world.launcher("gcc", fields={"stdin": b"null", **seen}, TERMITE_LOCAL=local) as launched:
        told = await launched.rest()
    assert (told[-1] == RAN_HERE) == (place == LOCAL)
    assert (told[-1] == (launcher_frames.EXIT, f"code={ExitCode.NOWHERE}\0".encode())) == (place != LOCAL)
