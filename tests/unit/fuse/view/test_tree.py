"""Compare the mirror's views, merged as overlayfs does, with a model of the master's tree."""

import stat
from collections.abc import Callable

import pytest

from termite.engine.errors import RemoteProtocolError
from termite.engine.model import UNKNOWN, Attr, Change, Changeset, Digest
from termite.engine.wire.protocol.messages import Directory
from termite.fuse.view.view_tree import DELTA_NAMES, Tree
from termite.fuse.view.views import WHITEOUT, Base, Delta, Layer, Listing, Need, View
from tests.unit.tables import each_row

Flat = dict[bytes, Attr]


def is_directory(attr: Attr) -> bool:
    return stat.S_ISDIR(attr.mode)


def children_of(flat: Flat, path: bytes) -> dict[bytes, Attr]:
    prefix = path + b"/" if path else b""
    names = {p[len(prefix) :]: a for p, a in flat.items() if p.startswith(prefix)}
    return {name: attr for name, attr in names.items() if name and b"/" not in name}


class Master:
    """A master that keeps all trees it ever had, by journal number."""

    def __init__(self, *directories: bytes, **files: bytes) -> None:
        self.clock = 0
        self.trees: list[Flat] = [{}]
        self.journal: list[Changeset] = []
        for path in directories:
            self.trees[0][path] = self.directory()

    def directory(self) -> Attr:
        self.clock += 1
        return Attr(stat.S_IFDIR | 0o755, 0, self.clock)

    def file(self, size: int = 1) -> Attr:
        self.clock += 1
        return Attr(stat.S_IFREG | 0o644, size, self.clock)

    @property
    def now(self) -> Flat:
        return self.trees[-1]

    def change(self, *changes: tuple[bytes, Attr | None]) -> None:
        flat = dict(self.now)
        for path, attr in changes:
            remains = attr is not None and is_directory(attr)
            for other in [p for p in flat if p.startswith(path + b"/")]:
                if not remains:
                    del flat[other]
            if attr is None:
                flat.pop(path, None)
            else:
                flat[path] = attr
        self.trees.append(flat)
        self.journal.append(Changeset(len(self.trees) - 1, tuple(Change(p, a) for p, a in changes)))

    def answer(self, path: bytes) -> Directory | None:
        flat = self.now
        if path and (path not in flat or not is_directory(flat[path])):
            return None
        return Directory(len(self.trees) - 1, Attr(stat.S_IFDIR | 0o755, 0, 0), children_of(flat, path))


class LostError(Exception):
    """The master has lost a directory, and the change is on its way: the job gets an error."""


def listing(tree: Tree, master: Master, view: View, path: bytes) -> Listing:
    while True:
        try:
            return tree.base_listing(view.base, path)
        except Need as need:
            tree.asked(need.path)
            reply = master.answer(need.path)
            tree.answered(need.path, reply)
            if reply is None:
                raise LostError(need.path) from None


def merged(tree: Tree, master: Master, view: View, path: bytes, warm: Layer | None = None) -> dict[bytes, Attr] | None:
    """Return what overlayfs shows in `path`, or None if it is not a directory.

    `warm` stands between the moved names and the base.
    """
    layers: list[Delta | Layer | Base] = [*view.sparse(), *([warm] if warm else []), view.base]

    def names_in(layer: Delta | Layer | Base, where: bytes) -> Listing:
        return listing(tree, master, view, where) if isinstance(layer, Base) else layer.listings.get(where, {})

    where = b""
    for name in path.split(b"/") if path else ():
        inside = where + b"/" + name if where else name
        below: list[Delta | Layer | Base] = []
        for layer in layers:
            attr = names_in(layer, where).get(name)
            if attr is None:
                continue
            if not is_directory(attr):
                break
            below.append(layer)
            if isinstance(layer, Layer) and inside in layer.opaque:
                break
        if not below:
            return None
        layers, where = below, inside
    if len(layers) == 1 and not isinstance(layers[0], Layer):
        # Overlayfs lists the whiteouts of a directory that is in one layer alone. Real layers have
        # a mark against that.
        assert WHITEOUT not in names_in(layers[0], where).values()
    shown: dict[bytes, Attr] = {}
    for layer in layers:
        for name, attr in names_in(layer, where).items():
            shown.setdefault(name, attr)
    return {name: attr for name, attr in shown.items() if attr is not WHITEOUT}


def walk(tree: Tree, master: Master, view: View, path: bytes = b"", warm: Layer | None = None) -> Flat:
    seen: Flat = {}
    for name, attr in (merged(tree, master, view, path, warm) or {}).items():
        child = path + b"/" + name if path else name
        seen[child] = attr
        assert tree.attr_at(view, child) == attr
        if is_directory(attr):
            seen.update(walk(tree, master, view, child, warm))
    return seen


def tree_of(master: Master) -> Tree:
    return Tree(b"", len(master.trees) - 1)


def test_with_no_change_a_job_has_the_base_alone() -> None:
    master = Master(b"d")
    view = tree_of(master).open_view()
    assert view.delta is None
    assert view.layers() == f"base/{view.base.name}"


def test_a_directory_not_looked_at_yet_needs_to_be_asked_for() -> None:
    tree = Tree(b"", 0)
    with pytest.raises(Need):
        tree.base_listing(tree.open_view().base, b"")


MASTER_AT_START = (b"d", b"d/sub", b"d/sub/deep", b"e")


def table() -> dict[str, list[list[tuple[bytes, str]]]]:
    """Return changesets of (path, its new type), by the name of the case."""
    return {
        "a file is made": [[(b"d/new", "file")]],
        "a file is changed": [[(b"d/sub/f", "file")], [(b"d/sub/f", "file")]],
        "a file is deleted": [[(b"d/sub/f", "file")], [(b"d/sub/f", "gone")]],
        "a directory is deleted": [[(b"d/sub", "gone")]],
        "a directory is deleted and made again": [[(b"d/sub", "gone"), (b"d/sub", "dir"), (b"d/sub/g", "file")]],
        "made again in a later changeset": [[(b"d/sub", "gone")], [(b"d/sub", "dir"), (b"d/sub/deep", "dir")]],
        "a directory becomes a file": [[(b"d/sub", "file")]],
        "a directory becomes a file and a directory": [[(b"d/sub", "file")], [(b"d/sub", "dir"), (b"d/sub/h", "file")]],
        "a file becomes a directory": [[(b"d/x", "file")], [(b"d/x", "dir"), (b"d/x/y", "dir"), (b"d/x/y/z", "file")]],
        "a directory gets another mode": [[(b"d/sub", "dir")]],
        "a change in a directory that is new": [[(b"n", "dir"), (b"n/m", "dir")], [(b"n/m/f", "file")]],
        "a new directory goes again": [[(b"n", "dir"), (b"n/f", "file")], [(b"n", "gone")]],
        "a change is undone": [[(b"d/f", "file")], [(b"d/f", "gone")]],
    }


@each_row("name", table())
@each_row("looked_at", [(), (b"",), (b"", b"d"), (b"", b"d", b"d/sub"), (b"", b"d", b"d/sub", b"d/sub/deep")])
def test_the_merged_view_is_the_truth_at_every_number(name: str, looked_at: tuple[bytes, ...]) -> None:
    master = Master(*MASTER_AT_START)
    tree = tree_of(master)
    first = tree.open_view()
    for path in looked_at:
        listing(tree, master, first, path)
    for changes in table()[name]:
        what: dict[str, Callable[[], Attr | None]]
        what = {"file": master.file, "dir": master.directory, "gone": lambda: None}
        master.change(*((path, what[kind]()) for path, kind in changes))
        tree.take_in(master.journal[-1:])
        view = tree.open_view()
        assert walk(tree, master, view) == master.now


def test_a_job_that_runs_keeps_what_it_saw_while_others_see_the_change() -> None:
    master = Master(*MASTER_AT_START)
    tree = tree_of(master)
    old = tree.open_view()
    before = walk(tree, master, old)
    master.change((b"d/sub", None), (b"d/new", master.file()))
    tree.take_in(master.journal)
    new = tree.open_view()
    assert walk(tree, master, old) == before
    assert walk(tree, master, new) == master.now


def test_an_unhashed_file_written_within_one_tick_is_another_version() -> None:
    attr = Attr(stat.S_IFREG | 0o644, 1, 5)
    master = Master(b"d")
    master.change((b"d/f", attr))
    tree = tree_of(master)
    shown = listing(tree, master, tree.open_view(), b"")
    assert shown == children_of(master.now, b"")
    old = listing(tree, master, tree.open_view(), b"d")[b"f"]
    master.change((b"d/f", Attr(stat.S_IFREG | 0o644, 1, 5)))
    tree.take_in(master.journal)
    view = tree.open_view()
    assert view.delta is not None
    assert view.delta.listings[b"d"][b"f"] is not old


def test_a_file_written_again_with_equal_digest_is_the_same_version() -> None:
    attr = Attr(stat.S_IFREG | 0o644, 1, 5, Digest(b"x" * 32, 1))
    master = Master(b"d")
    master.change((b"d/f", attr))
    tree = tree_of(master)
    for path in (b"", b"d"):
        listing(tree, master, tree.open_view(), path)
    master.change((b"d/f", attr))
    tree.take_in(master.journal)
    assert tree.open_view().delta is None


def test_changes_that_touch_nothing_known_leave_the_delta_as_it_is() -> None:
    master = Master(*MASTER_AT_START)
    tree = tree_of(master)
    for path in (b"", b"d"):
        listing(tree, master, tree.open_view(), path)
    master.change((b"d/f", master.file()))
    tree.take_in(master.journal)
    first = tree.open_view().delta
    master.change((b"e/f", master.file()))
    tree.take_in(master.journal)
    assert first is not None
    assert tree.open_view().delta is first


def test_a_reply_that_was_overtaken_by_changes_is_rolled_forward() -> None:
    master = Master(*MASTER_AT_START)
    tree = tree_of(master)
    listing(tree, master, tree.open_view(), b"")
    tree.asked(b"d")
    reply = master.answer(b"d")
    master.change((b"d/f", master.file()), (b"d/sub", None))
    tree.take_in(master.journal)
    view = tree.open_view()
    tree.answered(b"d", reply)
    assert walk(tree, master, view) == master.now


def test_a_change_that_a_reply_has_in_it_already_is_not_applied_again() -> None:
    master = Master(*MASTER_AT_START)
    tree = tree_of(master)
    old = master.file()
    listing(tree, master, tree.open_view(), b"")
    master.change((b"d/f", old))
    master.change((b"d/f", None))
    listing(tree, master, tree.open_view(), b"d")
    tree.take_in(master.journal[:1])
    assert b"f" not in (merged(tree, master, tree.open_view(), b"d") or {})


def test_a_reply_older_than_what_was_told_is_a_protocol_error() -> None:
    tree = Tree(b"", 5)
    tree.asked(b"")
    with pytest.raises(RemoteProtocolError):
        tree.answered(b"", Directory(4, Attr(stat.S_IFDIR, 0, 0), {}))


def test_changesets_that_come_early_wait_and_duplicates_do_nothing() -> None:
    master = Master(*MASTER_AT_START)
    tree = tree_of(master)
    walk(tree, master, tree.open_view())
    for _ in range(3):
        master.change((b"d/f", master.file()))
    tree.take_in(master.journal[1:])
    assert tree.number == 0
    tree.take_in(master.journal[:1])
    assert tree.number == 3
    tree.take_in(master.journal)
    assert walk(tree, master, tree.open_view()) == master.now


def test_a_directory_that_went_before_it_was_looked_at_is_empty_for_the_job_that_still_has_it() -> None:
    master = Master(*MASTER_AT_START)
    tree = tree_of(master)
    old = tree.open_view()
    listing(tree, master, old, b"")
    master.change((b"d", None))
    tree.take_in(master.journal)
    assert merged(tree, master, old, b"d") == {}


def test_what_has_changed_outside_the_writable_root_is_a_move_like_any_other() -> None:
    master = Master(b"usr", b"home", b"home/project")
    master.change((b"usr/f", master.file()), (b"usr/g", master.file()))
    tree = Tree(b"home/project", len(master.trees) - 1)
    first = tree.open_view()
    walk(tree, master, first)
    warm = begin_warm(tree, [b"usr/f", b"usr/g"])
    tree.hold(warm.listings)
    master.change((b"usr/f", master.file()), (b"usr/g", None), (b"usr/h", master.file()))
    tree.take_in(master.journal)
    view = tree.open_view()
    assert view.base is first.base
    assert walk(tree, master, view, warm=warm) == master.now
    root = master.directory()
    tree.take_in([Changeset(tree.number + 1, (Change(b"", root),))])
    assert tree.open_view().root is root
    assert tree.open_view().base is first.base


def change_many(master: Master) -> None:
    """Change more names than a delta may have."""
    master.change(*((b"d/%d" % i, master.file()) for i in range(DELTA_NAMES + 1)))


def test_a_directory_where_a_layer_has_a_file_is_shown_with_all_that_is_in_it() -> None:
    master = Master(b"d")
    tree = tree_of(master)
    walk(tree, master, tree.open_view())
    master.change((b"d/p", master.file()))
    tree.take_in(master.journal)
    warm = begin_warm(tree, [b"d/p"])
    tree.hold(warm.listings)
    master.change((b"d/p", None), (b"d/p", master.directory()), (b"d/p/q", master.directory()))
    master.change((b"d/p/q/x", master.file()))
    change_many(master)
    tree.take_in(master.journal)
    view = tree.open_view()
    assert view.base.name == "2"
    assert tree.held is not warm.listings
    assert walk(tree, master, view) == master.now


def test_a_directory_that_was_a_file_when_its_layer_was_begun_is_shown_with_all_that_is_in_it() -> None:
    master = Master(b"d", b"d/p")
    tree = tree_of(master)
    for path in (b"", b"d"):
        listing(tree, master, tree.open_view(), path)
    master.change((b"d/p", master.file()))
    tree.take_in(master.journal)
    layer = begin_layer(tree, [])
    assert layer is not None
    master.change((b"d/p", None), (b"d/p", master.directory()), (b"d/p/x", master.file()))
    tree.take_in(master.journal)
    tree.push(layer)
    view = tree.open_view()
    assert walk(tree, master, view) == master.now
    assert layer not in view.stack
    assert tree.pop_unused_layers() == [layer]


def test_a_new_directory_outside_the_writable_root_is_asked_for() -> None:
    master = Master(b"usr", b"usr/lib", b"home", b"home/project")
    master.change((b"usr/lib/f", master.file()), (b"usr/bin", master.file()))
    tree = Tree(b"home/project", len(master.trees) - 1)
    first = tree.open_view()
    walk(tree, master, first)
    warm = begin_warm(tree, [b"usr/lib/f"])
    tree.hold(warm.listings)
    master.change((b"usr/share", master.directory()))
    tree.take_in(master.journal)
    view = tree.open_view()
    assert not tree.is_known(b"usr/share")
    assert tree.held is warm.listings
    master.now[b"usr/share/f"] = master.file()  # no change says so: the mirror finds it when it asks
    assert walk(tree, master, view, warm=warm) == master.now
    master.change((b"usr/lib", None), (b"usr/lib", master.directory()))
    tree.take_in(master.journal)
    view = tree.open_view()
    assert tree.held is not warm.listings
    master.now[b"usr/lib/g"] = master.file()
    assert walk(tree, master, view) == master.now
    master.change((b"usr/bin", None), (b"usr/bin", master.directory()))
    later = begin_warm(tree, [b"usr/bin"])
    tree.take_in(master.journal)
    tree.hold(later.listings)
    assert tree.held is not later.listings
    assert walk(tree, master, tree.open_view()) == master.now


def test_a_directory_of_which_nobody_knew_what_it_was_is_above_no_error() -> None:
    """Overlayfs looks below a directory for more of it, and the mirror fails such a look."""
    master = Master()
    master.change((b"inc", Attr(UNKNOWN, 107, 0)))
    tree = tree_of(master)
    walk(tree, master, tree.open_view())
    master.change((b"inc", None), (b"inc", master.directory()), (b"inc/h", master.file()))
    tree.take_in(master.journal)
    view = tree.open_view()
    assert walk(tree, master, view) == master.now
    assert is_directory(listing(tree, master, view, b"")[b"inc"])


def test_what_a_warm_layer_has_hidden_is_hidden_by_the_delta_when_there_is_another_one() -> None:
    master = Master(b"d", b"d/p", b"d/p/old")
    tree = tree_of(master)
    walk(tree, master, tree.open_view())
    master.change((b"d/p", master.file()))
    tree.take_in(master.journal)
    one = begin_warm(tree, [b"d/p"])
    tree.hold(one.listings)
    master.change((b"d/p", None), (b"d/p", master.directory()))
    tree.take_in(master.journal)
    assert walk(tree, master, tree.open_view(), warm=one) == master.now
    two = begin_warm(tree, [])
    tree.hold(two.listings)
    assert walk(tree, master, tree.open_view(), warm=two) == master.now


def test_views_of_jobs_are_kept_until_the_jobs_end() -> None:
    master = Master(b"d")
    tree = tree_of(master)
    for path in (b"", b"d"):
        listing(tree, master, tree.open_view(), path)
    views = []
    for _ in range(3):
        master.change((b"d/f", master.file()))
        tree.take_in(master.journal)
        views.append(tree.open_view())
    assert tree.pop_unused() == []
    for view in views:
        tree.close_view(view)
    assert len(tree.pop_unused()) == 2


def layer_of(tree: Tree, listings: dict[bytes, Listing]) -> Layer:
    tree.add_ancestors(listings)
    return Layer("real", listings, names=sum(map(len, listings.values())))


def begin_layer(tree: Tree, left_out: list[bytes]) -> Layer | None:
    """Make a real layer of the fresh names, without those whose content is not in the store."""
    fresh, tree.moves.fresh = tree.moves.fresh, {}
    listings: dict[bytes, dict[bytes, Attr]] = {}
    for path, attr in fresh.items():
        if path not in left_out or is_directory(attr):
            parent, _, name = path.rpartition(b"/")
            listings.setdefault(parent, {})[name] = attr
    return layer_of(tree, dict(listings)) if listings else None


def begin_warm(tree: Tree, paths: list[bytes]) -> Layer:
    """Make a warm layer of the known files at these paths."""
    listings: dict[bytes, dict[bytes, Attr]] = {}
    for path in paths:
        attr = tree.truth_at(path)
        if attr is not None and not is_directory(attr):
            parent, _, name = path.rpartition(b"/")
            listings.setdefault(parent, {})[name] = attr
    return layer_of(tree, dict(listings))


def seal(tree: Tree, left_out: list[bytes]) -> None:
    if layer := begin_layer(tree, left_out):
        tree.push(layer)


def test_a_delta_stays_while_only_what_is_real_moves() -> None:
    master = Master(b"d")
    tree = tree_of(master)
    walk(tree, master, tree.open_view())
    master.change((b"d/large", master.file()))
    tree.take_in(master.journal)
    seal(tree, [b"d/large"])
    first = tree.open_view()
    assert first.delta is not None and first.above == 0
    master.change((b"d/small", master.file()), (b"d", master.directory()))
    tree.take_in(master.journal)
    seal(tree, [])
    second = tree.open_view()
    assert second.delta is first.delta
    assert second.above == 1
    assert walk(tree, master, second) == master.now
    assert second.layers() == f"../layers/real:delta/{first.delta.name}:base/{second.base.name}"
    master.change((b"d/large", master.file()))
    tree.take_in(master.journal)
    third = tree.open_view()
    assert third.delta is not first.delta and third.above == 0
    seal(tree, [])
    fourth = tree.open_view()
    assert fourth.delta is None
    assert walk(tree, master, fourth) == master.now


def test_a_name_that_went_once_more_while_its_layer_was_made_is_not_made_real_again() -> None:
    master = Master(b"d", b"d/e")
    tree = tree_of(master)
    walk(tree, master, tree.open_view())
    master.change((b"d/e", None))
    tree.take_in(master.journal)
    layer = begin_layer(tree, [])
    assert layer is not None
    master.change((b"d/e", master.file()), (b"d/e", None))
    tree.take_in(master.journal)
    tree.push(layer)
    assert not tree.moves.fresh
    master.change((b"d", None))
    tree.take_in(master.journal)
    seal(tree, [])
    assert walk(tree, master, tree.open_view()) == master.now
