"""A killed master leaves nothing that the next command of its user, anywhere, does not remove."""

import os
import signal
from pathlib import Path

import pytest

from termite.engine.loop.readiness import wait_until_readable
from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.conftest import USERS, MakePlace
from tests.e2e.leftovers import assert_nothing_left
from tests.e2e.places import Place
from tests.e2e.waiting import LIMIT_S, wait_until


def kill_embedded(tree: Tree) -> None:
    """Kill the master of a tree, with the coordinator and the worker inside, and wait for its end.

    It has its locks until then.
    """
    mark = f"E2E_MARK={tree.where.env['E2E_MARK']}".encode()
    socket = os.fsencode(tree.path / ".termite-socket")
    killed = 0
    for directory in Path("/proc").iterdir():
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
            if socket in words and b"--embedded" in words and mark in (directory / "environ").read_bytes():
                end = os.pidfd_open(int(directory.name))
                signal.pidfd_send_signal(end, signal.SIGKILL)
                assert wait_until_readable([end], LIMIT_S)
                os.close(end)
                killed += 1
        except OSError:
            continue
    assert killed == 1


def left_in(where: Place, tree: Tree) -> list[str]:
    """Return the files that a killed master, worker and mirror leave.

    The cache of root is left out, because all tests of this machine share it.
    """
    home, tmpdir = where.base / "home", Path(f"/proc/{where.holder or 'self'}/root/var/tmp")
    cache, running = home / ".cache/termite", home / ".local/state/termite/running"
    found = [*tree.path.rglob(".termite-*"), *running.glob("*")]
    found += [*cache.glob("warm/*"), *cache.glob("cas/tmp/*"), *cache.glob("hashes-*")]
    if where.holder:  # without it, the directory is not this test's alone
        found += tmpdir.glob("termite-worker-*")
    return [str(path) for path in found]


@pytest.mark.parametrize("kind", USERS)
@pytest.mark.parametrize("command", ["a build elsewhere", "termite-ctl elsewhere", "termite-ctl fails"])
def test_a_command_in_another_tree_removes_what_a_killed_master_left(
    make_place: MakePlace, kind: str, command: str
) -> None:
    with make_place(kind) as where:
        tree, other = new_tree(where), new_tree(where, "other")
        assert tree.ctl("start", str(tree.path)).code == 0
        assert tree.termite("sh", "-c", "gcc --version; echo y >made").code == 0
        kill_embedded(tree)
        assert (tree.path / ".termite-socket").exists() and (tree.path / ".termite-staging").exists()
        assert len(left_in(where, tree)) > 4
        if command == "a build elsewhere":
            other.write("Makefile", "all:\n\techo x >x\n")
            with embedded(other):
                assert other.make().code == 0
                wait_until(lambda: not list(tree.path.rglob(".termite-*")), "the tree of the killed master is clean")
        elif command == "termite-ctl elsewhere":
            assert other.ctl("secret").code == 0
        else:
            assert tree.ctl("status").code == 100, "its master was killed"
        wait_until(lambda: not left_in(where, tree), "nothing is left", lambda: str(left_in(where, tree)))
        assert (tree.path / "made").read_text() == "y\n"
        assert_nothing_left(where, tree.path, other.path)
