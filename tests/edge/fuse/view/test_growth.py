"""The tables of the view do not grow with the number of names that once were."""

import stat

import pytest

from termite.engine.model import Attr, Digest
from termite.fuse.view.master_facts import FEW_DIGESTS
from termite.fuse.view.view_tree import Tree
from termite.fuse.view.views import Layer
from tests.edge.fuse.view.test_tree import begin_merge, end_merge, used
from tests.unit.fuse.view.test_tree import Master, begin_warm, seal, tree_of, walk

JOBS = 600
KEPT = 5  # jobs whose names are there at the same time
SLACK = 60  # entries: layers that are not merged yet hold the names of some jobs


class Build:
    """A build whose every job has names of its own, which a later job deletes again."""

    def __init__(self) -> None:
        self.master = Master(b"d", b"d/sub")
        self.tree: Tree = tree_of(self.master)
        walk(self.tree, self.master, self.tree.open_view())
        self.warm: Layer | None = None

    def job(self, number: int, kind: str) -> None:
        """Run one job, as a mirror does: take in, make layers, merge them, show, end."""
        master, tree = self.master, self.tree
        new, old = b"d/%d" % number, b"d/%d" % (number - KEPT)
        match kind:
            case "file" | "warm file" | "large warm file":
                made = [(new, master.file())]
            case _:
                made = [(new, master.directory()), (new + b"/x", master.file()), (new + b"/y", master.file())]
        master.change(*made, *([(old, None)] if old in master.now else []))
        tree.take_in(master.journal[-1:])
        if kind == "large warm file" or (kind == "warm file" and number % 7 == 0):
            self.warm = begin_warm(tree, [new])
            tree.hold(self.warm.listings)
        seal(tree, [path for path, _ in made] if kind == "large warm file" else [])
        while count := tree.moves.mergeable():
            end_merge(tree, begin_merge(tree, 0, count))
        view = tree.open_view()
        if number % 50 == 0:
            assert walk(tree, master, view, warm=used(tree, self.warm)) == master.now
        tree.close_view(view)
        tree.pop_unused()
        tree.pop_unused_layers()


@pytest.mark.parametrize("kind", ["file", "directory", "warm file", "large warm file"])
def test_names_that_were_deleted_again_leave_nothing_in_any_table(kind: str) -> None:
    build = Build()
    for number in range(JOBS // 3):
        build.job(number, kind)
    early = build.tree.statistics()
    for number in range(JOBS // 3, JOBS):
        build.job(number, kind)
    late = build.tree.statistics()
    assert late.pop("number") > early.pop("number")
    assert set(late) >= {"sealed_names", "cut_names", "layer_names", "frozen_directories", "known_names"}
    assert {name: late[name] for name in late if late[name] > early[name] + SLACK} == {}
    assert late["cut_names"] < SLACK + KEPT
    assert late["bases"] <= 2, "a new base is no way to forget names, because its page cache is lost"


def test_digests_of_files_with_several_names_go_with_the_files() -> None:
    master = Master(b"d")
    tree = tree_of(master)
    walk(tree, master, tree.open_view())

    def linked(number: int) -> Attr:
        return Attr(stat.S_IFREG | 0o644, 1, number, nlink=2, link_id=number)

    stays = linked(1)
    master.change((b"d/stays", stays))
    for number in range(2, 4 * FEW_DIGESTS):
        attr = linked(number)
        master.change((b"d/%d" % number, attr), (b"d/%d" % (number - 1), None))
        tree.take_in(master.journal[-2:])
        tree.learn_digest(attr, Digest(b"%032d" % number, 1))
        if number == 2:
            tree.learn_digest(stays, Digest(b"%032d" % 1, 1))
        assert tree.digest_of(attr) is not None
    assert tree.statistics()["link_digests"] <= FEW_DIGESTS
    assert tree.digest_of(stays) is not None, "its version is still there"
