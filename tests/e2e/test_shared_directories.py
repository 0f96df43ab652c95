"""In a directory that a team shares, results get the group and the rights of a plain build."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.engine.errors import Reason
from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.conftest import USERS, MakePlace
from tests.e2e.places import IS_ROOT
from tests.edge.engine.tree.test_access_lists import USER, access_list

LIST = access_list(7, 7, 5, ((USER, 7, 1234),))
MAKEFILE = """
all: g/f ; @echo 1 >a/f; mkdir -p a/d g/d/e; echo 2 >a/d/f; echo 3 >g/d/e/f; mkfifo g/p
g/f: ; @echo 1 >$@; ln -s f g/l; touch g/private; chmod 600 g/private
copy: ; @cp -r a g/c
modes: ; @cp g/f a/copied; touch a/m; chmod 644 a/m; install -D -m 755 a/m a/i/m; mkdir -m 755 a/o
script: ; @sh ./modes.sh
moved: ; @echo 6 >g/f2; mv g/f2 g/private
next: moved ; @echo 4 >>g/f; echo 5 >g/d/n; echo 7 >>a/f; rm a/d/f; echo 2 >a/d/f
"""
SCRIPT = "touch a/s; chmod 644 a/s; install -m 644 a/s a/si; umask 077; echo 1 >a/private; mkdir a/sd"


@pytest.fixture(params=USERS)
def team(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Tree]:
    with make_place(request.param) as where, embedded(new_tree(where)) as tree:
        yield tree


def shared_by_team(tree: Tree, gid: int) -> Tree:
    """Make a directory with the set-group-id bit, and one with a default list."""
    tree.write("Makefile", MAKEFILE)
    tree.write("modes.sh", SCRIPT)
    group, lists = tree.mkdir("g"), tree.mkdir("a")
    os.chown(group, -1, gid)
    group.chmod(0o2775)
    os.setxattr(lists, "system.posix_acl_default", LIST)
    return tree


def facts(top: Path) -> dict[str, object]:
    """Return kind, mode, owner, group and access lists of everything below the directory."""
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        if ".termite" in str(path):
            continue
        st = path.lstat()
        lists = () if stat.S_ISLNK(st.st_mode) else os.listxattr(path)
        acls = {name: os.getxattr(path, name) for name in lists if "posix_acl" in name}
        found[str(path.relative_to(top))] = (oct(st.st_mode), st.st_uid, st.st_gid, acls)
    return found


def test_results_are_as_after_a_plain_build(team: Tree) -> None:
    gid = 2000 if IS_ROOT and team.where.uid == 0 else team.where.uid
    plain, remote = (shared_by_team(team.subtree(name), gid) for name in ("plain", "remote"))
    for goal in ("all", "next", "copy", "modes", "script"):
        assert plain.plain("make", "-s", goal).code == 0
        done = remote.make("-s", goal)
        assert done.code == 0, done
        assert facts(remote.path) == facts(plain.path), goal
    assert facts(plain.path)["g/d/e/f"][2] == gid  # type: ignore[index]
    assert team.jobs() == 5
    assert team.status()["fallbacks"] == {Reason.MODE_SET: 2}


@pytest.mark.needs_root("gives the directory to a foreign group")
def test_a_group_that_is_not_the_users_makes_the_command_run_here(team: Tree) -> None:
    if not team.where.uid:
        pytest.skip("this is about an ordinary user")
    tree = shared_by_team(team.subtree("foreign"), 2000)
    (tree.path / "g").chmod(0o2777)
    done = tree.termite("sh", "-c", "echo 1 >g/f")
    assert done.code == 0, done
    assert (tree.path / "g/f").stat().st_gid == 2000, "the kernel gives it to the group of the directory"
    assert b"1 command runs on this machine" in done.stderr
    path = tree.write("colleague", "1\n", 0o666)
    os.chown(path, 1000, 1001)
    done = tree.termite("sh", "-c", "echo 2 >>colleague")
    assert (done.code, path.read_text(), path.stat().st_uid) == (0, "1\n2\n", 1000), done
    assert Reason.FOREIGN_IDS.words.encode() in done.stderr
