"""The launcher tells what its command inherits beside the environment and the standard files."""

import os
import resource
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.native.fake_master import FakeMaster, Invocation, exit_code, finish, started


@pytest.fixture(autouse=True)
def _no_other_descriptors() -> None:
    """Close what the terminal or the CI system has left open, because it would be named here."""
    for fd in range(5, 10):
        try:
            os.set_inheritable(fd, False)
        except OSError:
            continue


def told(
    launcher: Path,
    tree: Path,
    master: FakeMaster,
    before: str,
    *words: str,
    env: Mapping[str, str] | None = None,
    nicer: int = 0,
) -> Invocation:
    """Return the invocation of a command that a shell starts after the commands `before`."""
    script = f"{before}; exec nice -n {nicer} {shlex.join([str(launcher), *(words or ('gcc',))])}"
    with started(["bash", "-c", script], tree, env={"PATH": "/usr/bin:/bin", **(env or {})}) as process:
        talk = master.accept()
        talk.say(exit_code(0))
        finish(process)
    return talk.invocation


def test_limits_are_those_of_the_process(launcher: Path, tree: Path, master: FakeMaster) -> None:
    limits = told(launcher, tree, master, "ulimit -S -s 1234; ulimit -n 500; ulimit -S -t 99")["limits"].decode()
    told_ones = dict(part.split(":", 1) for part in limits.split(","))
    assert told_ones[str(resource.RLIMIT_NOFILE)] == "500:500"
    assert told_ones[str(resource.RLIMIT_STACK)].startswith(f"{1234 * 1024}:")
    assert told_ones[str(resource.RLIMIT_CPU)].startswith("99:")
    assert told_ones[str(resource.RLIMIT_AS)].split(":")[0] in ("-", str(resource.getrlimit(resource.RLIMIT_AS)[0]))
    assert {*told_ones} == {"0", "1", "2", "3", "4", "7", "9"}


def test_niceness_and_ignored_signals_are_told_if_there_are_any(launcher: Path, tree: Path, master: FakeMaster) -> None:
    said = told(launcher, tree, master, "trap '' PIPE USR1", nicer=5)
    assert said["nice"] == str(min(os.nice(0) + 5, 19)).encode()
    assert int(said["ignored"]) & (1 << 12 | 1 << 9 | 1) == 1 << 12 | 1 << 9
    assert not told(launcher, tree, master, "true").all("nice") or os.nice(0)


OPEN = "exec 7>log 8<."


@pytest.mark.parametrize(
    ("words", "descriptor"),
    [
        (("sh", "-c", "echo hi >&7"), b"7"),
        (("sh", "-c", "read x <&8; echo 2>&1"), b"8"),
        (("sh", "-c", "echo x >& 7"), b"7"),
        (("cat", "/dev/fd/7"), b"7"),
        (("cat", "/proc/self/fd/8"), b"8"),
        (("gpg", "--status-fd", "7", "x"), b"7"),
        (("gpg", "--status-fd=7"), b"7"),
        (("python3", "-c", "import os; os.fdopen(7)"), None),
        (("sh", "-c", "echo hi >&9; echo 2>&1 1>&2"), None),
        (("sh", "-c", "exec 6>&1; echo >&6"), None),
        (("sh", "-c", "ls && 7z x; f 7"), None),
        (("gcc", "-c", "fd", "7"), None),
        (("gcc", "-c", "&7", "fd", "fd7", ""), None),
    ],
)
def test_an_inherited_descriptor_is_told_if_the_command_names_it(
    launcher: Path, tree: Path, master: FakeMaster, words: tuple[str, ...], descriptor: bytes | None
) -> None:
    assert told(launcher, tree, master, OPEN, *words).all("inherited") == ([descriptor] if descriptor else [])


def test_the_jobservers_descriptors_do_not_count(launcher: Path, tree: Path, master: FakeMaster) -> None:
    flags = {"MAKEFLAGS": "-j --jobserver-auth=7,8 -s"}
    words = ("sh", "-c", "echo >&7; read <&8")
    assert not told(launcher, tree, master, OPEN, *words, env=flags).all("inherited")
    flags = {"MAKEFLAGS": "-j --jobserver-auth=fifo:/tmp/x"}
    assert told(launcher, tree, master, OPEN, *words, env=flags)["inherited"] == b"7"
