"""Test results on a small file system that is mounted below the tree, with a whole cluster."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.conftest import USERS, MakePlace, needs_root
from tests.e2e.places import Outcome

pytestmark = needs_root  # to mount

# The output tells a second run from the first one.
TOO_BIG = "echo x >>log; echo y >>build/log; head -c 400000 /dev/zero >build/big; echo $?; exit 3"
CHANGES = """
mkdir -p build/made/deep; echo 1 >build/made/f; ln -s f build/made/l
mkfifo build/made/p; rm -r build/old; mv build/d build/moved; cp build/moved/x top
chmod 750 build/mode; mv mode build/top; mv build/readonly/f .
ln build/made/f build/made/h; ln build/moved/x build/x; echo 2 >build/moved/x
"""


@pytest.fixture(params=USERS)
def mounted(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Tree]:
    """Yield a tree with an embedded cluster, in which `build` is a tmpfs of 256 KiB."""
    with make_place(request.param) as where:
        tree = new_tree(where)
        tree.mkdir("build")
        options = f"size=256k,mode=755,uid={where.uid},gid={where.uid}"
        subprocess.run([*where.enter, "mount", "-t", "tmpfs", "-o", options, "none", tree.path / "build"], check=True)
        with embedded(tree):
            yield tree  # the mount ends with the namespace of the place


def script(tree: Tree, text: str) -> Outcome:
    done = tree.plain("sh", "-c", text)
    assert done.code == 0, done
    return done


def test_a_result_that_does_not_fit_leaves_no_trace_and_the_command_runs_here(mounted: Tree) -> None:
    done = mounted.termite("sh", "-c", TOO_BIG)
    assert (done.code, done.stdout) == (3, b"1\n"), done
    assert b"1 command runs on this machine" in done.stderr and b"No space left on device" in done.stderr, done
    assert script(mounted, "cat log build/log").stdout == b"x\ny\n", "it ran once"
    left = script(mounted, "find . -name '.termite-staging-*'; stat -c %s build/big").stdout
    assert left.isdigit() or int(left) < 256 * 1024, left


def test_all_kinds_of_changes_come_to_both_file_systems(mounted: Tree) -> None:
    prepare = """
    find . -mindepth 1 -not -name '.termite*' -not -path './.termite*' -not -path ./build -delete
    mkdir -p build/old/deep build/d build/readonly; echo x >build/d/x; echo 1 >build/mode; echo 2 >mode
    echo 3 >build/readonly/f; touch build/old/deep/y; touch -d @1000000000 build
    """
    found = []
    for run in (mounted.plain, mounted.termite):
        script(mounted, prepare)
        assert run("sh", "-ec", CHANGES).code == 0
        found.append(
            script(mounted, "find . -not -path './.termite*' -printf '%P %y %m %n %l\\n' | sort; cat build/x").stdout
        )
    assert found[0] == found[1]
    assert mounted.jobs() > 0
