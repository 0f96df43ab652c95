"""Build in a tree on overlayfs, as in a container: the sources are in the lower layer."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.conftest import USERS, MakePlace, needs_root

pytestmark = needs_root  # to mount

MAKEFILE = """
OBJECTS = a.o b.o c.o
app: $(OBJECTS)
\tcc -o $@ $^ && echo linked $@ >>history
%.o: %.c shared.h
\tcc -c -o $@ $< && echo $@ >>history
tidy:
\trm -r old && mkdir old && echo new >old/file && mv name renamed && chmod 700 script && ln shared.h other.h
"""
SOURCES = {
    "a.c": '#include "shared.h"\nint b(void), c(void); int main(void) { return N + b() + c(); }\n',
    "b.c": '#include "shared.h"\nint b(void) { return N; }\n',
    "c.c": '#include "shared.h"\nint c(void) { return N; }\n',
    "shared.h": "#define N 1\n",
    "history": "begun\n",
    "old/file": "old\n",
    "old/gone": "old\n",
    "name": "name\n",
    "script": "true\n",
    "Makefile": MAKEFILE,
}
LOOK = (
    "find . -not -path './.termite*' -not -type d -printf '%P %y %m %n %l\\n' | sort;"
    " find . -not -path './.termite*' -not -name history -type f | sort | xargs sha256sum; sort history"
)


@pytest.fixture(params=USERS)
def trees(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[tuple[Tree, Tree]]:
    """Yield two trees that are overlays with equal lower layers; the second one has a cluster."""
    with make_place(request.param) as where, ExitStack() as stack:
        plain, distributed = (overlay_tree(new_tree(where, name)) for name in ("plain", "distributed"))
        stack.enter_context(embedded(distributed))
        yield plain, distributed


def overlay_tree(tree: Tree) -> Tree:
    """Mount an overlay in a directory of `tree`, in the namespace of the place."""
    for name, text in SOURCES.items():
        tree.write(f"lower/{name}", text)
    merged = tree.subtree("merged")
    for name in ("upper", "work"):
        tree.mkdir(name)
    options = ",".join(f"{kind}dir={tree.path / kind}" for kind in ("lower", "upper", "work"))
    subprocess.run([*tree.where.enter, "mount", "-t", "overlay", "-o", options, "none", merged.path], check=True)
    return merged  # the mount ends with the namespace of the place


def local(tree: Tree, script: str) -> bytes:
    done = tree.plain("sh", "-ec", script)
    assert done.code == 0, done
    return done.stdout


def test_files_of_the_lower_layer_are_read_replaced_appended_to_and_removed(trees: tuple[Tree, Tree]) -> None:
    plain, distributed = trees
    edits = ("true", "echo '#define N 2' >shared.h", "sed -i s/N/3/ b.c", "rm c.o")
    for edit in edits:
        local(plain, edit + "; sleep 0.01; make -s")
        local(distributed, edit)
        done = distributed.make("-s", "-j3")
        assert (done.code, done.stderr) == (0, b""), done
        assert local(distributed, LOOK) == local(plain, LOOK), edit
        assert b"up to date" in local(distributed, "make app"), edit
    local(plain, "make -s tidy")
    assert distributed.make("-s", "tidy").code == 0
    assert local(distributed, LOOK) == local(plain, LOOK)
    assert distributed.jobs() >= 3 * len(edits)
