"""A hostile master puts NUL bytes into what the sandbox is told.

The rest would be fields of its own making in the sandbox's order. With such a field a job had a
directory of the worker's disk as its standard input, or as its root.
"""

import os
from typing import Any

import pytest
import trio

from termite.engine.errors import ConnectionLost, UserError, first_error
from tests.e2e.mirrors import Starter, mirror
from tests.hostile.masters import STARTERS, HostileMaster, attacked_place, listed

PATIENCE_S = 30
INJECTED = {
    "the worker's own root as standard input": b"\0stdin=../../../../../../../..\0stdin_offset=0",
    "a home of the worker as the job's root": b"\0lower=%(home)b:base/1",
}
READ = b"cat secret /secret /dev/fd/0/%(home)b/secret; cd /dev/fd/0/%(home)b && echo x >>authorized_keys; ls /dev/fd/0"


def parts_with(tail: bytes, project: bytes, script: bytes) -> dict[str, dict[str, Any]]:
    """Return forged parts of a Run, by the part that has the injected fields."""
    shell = (b"/bin/sh", b"-c", script)
    env = (b"PATH=/usr/bin:/bin",)
    return {
        "cwd": {"cwd": project + tail, "argv": shell},
        "exe": {"exe": b"/bin/sh" + tail, "argv": shell},
        "argv": {"argv": (*shell, b"word" + tail)},
        "env": {"env": (*env, b"NAME=value" + tail), "argv": shell},
        "a name in env": {"env": (*env, b"NAME" + tail + b"=value"), "argv": shell},
    }


@pytest.mark.parametrize("starter", STARTERS)
@pytest.mark.parametrize("injected", INJECTED)
@pytest.mark.parametrize("part", ["cwd", "exe", "argv", "env", "a name in env"])
async def test_a_nul_in_a_command_ends_the_connection_before_anything_runs(
    starter: Starter, injected: str, part: str
) -> None:
    with attacked_place(starter) as base:
        names = {b"home": os.fsencode(base / "home")}
        forged = parts_with(INJECTED[injected] % names, os.fsencode(base / "project"), READ % names)[part]
        before = listed(base / "home")
        output: list[bytes] = []
        master = HostileMaster(base / "project")
        with trio.fail_after(PATIENCE_S):
            async with mirror(master, base / "place", starter):
                assert await master.said("echo", "served") == b"served\n"
                with pytest.raises((ConnectionLost, UserError)):
                    await master.run("/bin/sh", output=output, **forged)
                with pytest.raises(ConnectionLost):
                    await master.run("/bin/true")
        assert output == []
        assert listed(base / "home") == before
        print("HELD", part, injected)


@pytest.mark.parametrize("starter", STARTERS)
@pytest.mark.parametrize(
    "fields",
    [
        {"hostname": "home\0lower=/home:base/1"},
        {"master": "a name\nWARNING a line of the log"},
        {"uid": -1},
        {"slots": 10**9},
        {"writable_root": b"home\0user"},
        {"writable_root": b"../../etc"},
        {"writable_root": b"/etc"},
    ],
    ids=lambda fields: "-".join(map(repr, *fields.items())),
)
async def test_an_absurd_lease_ends_the_connection_before_anything_is_mounted(
    starter: Starter, fields: dict[str, Any]
) -> None:
    with attacked_place(starter) as base:
        before = listed(base / "home")
        with trio.fail_after(PATIENCE_S), pytest.raises((ConnectionLost, UserError)), first_error():
            async with mirror(HostileMaster(base / "project", **fields), base / "place", starter):
                pytest.fail("a lease was granted")
        assert os.listdir(base / "place/scratch") == []
        assert listed(base / "home") == before
        print("HELD", fields)
