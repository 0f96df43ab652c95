"""Tests of the environments that tie a command to the master's machine."""

from termite.engine.decide.environment import Environment
from termite.engine.decide.logic.ties import tie_of
from termite.engine.errors import Reason
from tests.unit.tables import each_row

LIBRARY = "/usr/lib/x86_64-linux-gnu/libfakeroot/libfakeroot-sysv.so"


@each_row(
    ("env", "tie"),
    [
        ({}, None),
        ({"PATH": "/usr/bin", "LD_PRELOAD": "libeatmydata.so"}, None),
        ({"FAKEROOTKEY": "12345"}, Reason.BELOW_FAKEROOT),
        ({"FAKEROOTKEY": ""}, None),
        ({"LD_PRELOAD": "libfakeroot-sysv.so"}, Reason.BELOW_FAKEROOT),
        ({"LD_PRELOAD": f"libeatmydata.so:{LIBRARY}"}, Reason.BELOW_FAKEROOT),
        ({"LD_PRELOAD": f"libeatmydata.so {LIBRARY}"}, Reason.BELOW_FAKEROOT),
        ({"LD_PRELOAD": "/home/me/libfakeroot/other.so"}, None),
        ({"LD_PRELOAD": "libpseudo.so", "PSEUDO_PREFIX": "/usr"}, Reason.BELOW_PSEUDO),
        ({"PSEUDO_PREFIX": "/usr", "PSEUDO_UNLOAD": "1"}, None),
        ({"FAKECHROOT": "true", "LD_PRELOAD": "libfakechroot.so"}, Reason.BELOW_FAKECHROOT),
        ({"LD_PRELOAD": "libfakechroot.so"}, Reason.BELOW_FAKECHROOT),
        ({"FAKETIME_SHARED": "/faketime_sem_7 /faketime_shm_7", "FAKETIME": "-1d"}, Reason.BELOW_FAKETIME),
        ({"FAKETIME": "-1d", "LD_PRELOAD": "/usr/lib/faketime/libfaketime.so.1"}, None),
        ({"MAKEFLAGS": " -j4 --jobserver-auth=fifo:/tmp/GMfifo1", "SSH_AUTH_SOCK": "/run/x"}, None),
    ],
)
def test_a_command_is_tied_by_what_its_environment_says(env: dict[str, str], tie: Reason | None) -> None:
    assert tie_of(env) is tie
    assert Environment(env).tie is tie
