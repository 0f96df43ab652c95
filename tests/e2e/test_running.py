"""How a cluster is run by hand, as the first termite told it: the same lines, one after the other, without a pause."""

from collections.abc import Callable

from tests.e2e.cluster import new_tree
from tests.e2e.conftest import needs_root
from tests.e2e.leftovers import assert_nothing_left
from tests.e2e.places import COMMANDS, Place

# With the default ports and the default name of the secret. The worker is root's, as by sudo.
RUNNING = """
ip link set lo up
dd if=/dev/random of=secret.txt bs=1 count=20 status=none && chmod 0600 secret.txt
$TERMITE_DIR/bin/termite-coordinator &
$TERMITE_DIR/bin/termite-worker -jobs 4 &

mkdir bin
ln -s $TERMITE_DIR/bin/termite-make bin/
ln -s $TERMITE_DIR/bin/termite bin/
PATH=$PWD/bin:$PATH
cd project
$TERMITE_DIR/bin/termite-master -jobs 4 \\
 -secret ../secret.txt &
termite-make -j20
code=$?
termite gcc -c x.c
$TERMITE_DIR/bin/termite-ctl status
kill %3; wait %3; kill %1 %2; wait
exit $code
"""


@needs_root
def test_the_lines_work_as_they_are_written(places: Callable[..., Place]) -> None:
    where = places("root", network=True)
    tree = new_tree(where)
    tree.write("x.c", "int x;\n")
    tree.write("Makefile", "all: $(shell seq 1 20)\n%:\n\t@gcc -c -o $@ x.c\n")
    (where.base / "termite").mkdir()
    (where.base / "termite" / "bin").symlink_to(COMMANDS)
    env = {"TERMITE_DIR": str(where.base / "termite"), "TERMITE_LOCAL": "never"}
    done = where.run(["bash", "-c", RUNNING], where.base, env=env)
    assert done.code == 0, done
    assert b"started a master" not in done.stderr, done
    assert b"a master runs here already" not in done.stderr, done
    assert b"worker    " in done.stdout
    assert b":1235: " in done.stdout, done
    assert {str(number) for number in range(1, 21)} <= {path.name for path in tree.path.iterdir()}
    assert (tree.path / "x.o").exists()
    assert_nothing_left(where, tree.path)
