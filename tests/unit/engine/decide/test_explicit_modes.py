"""Commands that set modes themselves are told by their text."""

import pytest

from termite.engine.decide.logic.explicit_modes import may_set_modes


@pytest.mark.parametrize(
    "text",
    [
        "chmod 644 f",
        "cd x && /usr/bin/install -m 755 a b",
        "rm -f l.a; arm-linux-gnueabi-ar rcs l.a x.o",
        "mkdir -p -m 700 d",
        "mkdir -pm755 d",
        "(cp a b)",
        "tar xf t.tar",
    ],
)
def test_a_program_that_sets_modes_is_found(text: str) -> None:
    assert may_set_modes(text)


@pytest.mark.parametrize(
    "text",
    [
        "gcc -c cp.c -o install.o",
        "mkdir -p d; gcc -m64 -c x.c",
        "echo 1 >tar.txt",
        "ld -o chmod.x a.o",
        "g++ -DAR=1 -Icp-lib/x y.cc",
        "cpp x; start; git-am",
    ],
)
def test_other_commands_are_not(text: str) -> None:
    assert not may_set_modes(text)
