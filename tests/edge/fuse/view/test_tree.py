"""Long histories of views, bases, layers and merges, against a model of overlayfs."""

import os
import random
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from termite.engine.model import Attr
from termite.engine.paths import join
from termite.engine.wire.protocol.messages import Directory
from termite.fuse.view.moved_names import MovedNames
from termite.fuse.view.view_tree import DELTA_NAMES, Tree
from termite.fuse.view.views import WHITEOUT, Layer, View
from tests.unit.fuse.view.test_tree import (
    Flat,
    LostError,
    Master,
    begin_layer,
    begin_warm,
    change_many,
    is_directory,
    merged,
    seal,
    tree_of,
    walk,
)


def test_a_new_base_below_a_layer_that_has_moved_far_is_made_once() -> None:
    master = Master(b"d")
    change_many(master)
    tree = tree_of(master)
    walk(tree, master, tree.open_view())
    warm = begin_warm(tree, list(master.now))
    tree.hold(warm.listings)
    change_many(master)
    tree.take_in(master.journal)
    view = tree.open_view()
    assert view.base.name == "2"
    assert walk(tree, master, view, warm=warm) == master.now
    assert tree.open_view().base is view.base


def test_a_large_delta_gets_a_new_base_and_unused_views_are_dropped_but_the_last_base_is_kept() -> None:
    master = Master(b"d")
    tree = tree_of(master)
    old = tree.open_view()
    walk(tree, master, old)
    for turn in range(3):
        master.change(*((b"d/%d-%d" % (turn, i), master.file()) for i in range(DELTA_NAMES + 1)))
        tree.take_in(master.journal)
        tree.close_view(old)
        new = tree.open_view()
        assert new.base is not old.base
        assert walk(tree, master, new) == master.now
        old = new
    assert tree.pop_unused() == [b"base/1", b"base/2"]
    assert list(tree.bases) == ["3", "4"]


NAMES = st.sampled_from([b"a", b"b", b"c"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(PATHS, min_size=1, max_size=3)),
        st.tuples(st.just("mkdir"), st.lists(PATHS, min_size=1, max_size=3)),
        st.tuples(st.just("delete"), st.lists(PATHS, min_size=1, max_size=2)),
        st.tuples(st.just("remake"), st.lists(PATHS, min_size=1, max_size=2)),
        st.tuples(st.just("look"), st.lists(PATHS, min_size=1, max_size=2)),
        st.tuples(st.just("ask"), st.lists(PATHS, min_size=1, max_size=1)),
        st.tuples(st.just("answer"), st.just([])),
        st.tuples(st.just("deliver"), st.just([])),
        st.tuples(st.just("open"), st.just([])),
        st.tuples(st.just("check"), st.just([])),
        st.tuples(st.just("begin layer"), st.lists(PATHS, max_size=2)),
        st.tuples(st.just("end layer"), st.just([])),
        st.tuples(st.just("merge"), st.just([])),
        st.tuples(st.just("end merge"), st.just([])),
        st.tuples(st.just("begin warm"), st.lists(PATHS, max_size=3)),
        st.tuples(st.just("end warm"), st.just([])),
    ),
    max_size=40,
)


def plausible(master: Master, kind: str, path: bytes) -> list[tuple[bytes, Attr | None]]:
    """Return the changes that a master would journal; none if the parent is not a directory."""
    parent = path.rpartition(b"/")[0]
    if parent and (parent not in master.now or not is_directory(master.now[parent])):
        return []
    if kind == "write":
        return [(path, master.file())]
    if kind == "mkdir":
        return [(path, master.directory())]
    if kind == "delete":
        return [(path, None)]
    return [(path, None), (path, master.directory()), (path + b"/a", master.file()), (path + b"/b", master.directory())]


def used(tree: Tree, warm: Layer | None) -> Layer | None:
    """Return the warm layer if the tree still holds it, else None."""
    return warm if warm is not None and tree.held is warm.listings else None


def end_layer(tree: Tree, sealing: list[tuple[Layer, MovedNames]]) -> None:
    """Push the layer that was begun; drop it if there is a new base by now."""
    if sealing:
        layer, moves = sealing.pop()
        if moves is tree.moves:
            tree.push(layer)


Merging = tuple[tuple[Layer, ...], Layer, MovedNames]


def begin_merge(tree: Tree, at: int = 0, count: int = 2) -> list[Merging]:
    """Merge `count` adjacent layers from position `at`; return [] if there are less than two."""
    some = tuple(tree.moves.stack[at : at + count])
    if len(some) < 2:
        return []
    one = tree.merge(some)
    names = sum(map(len, one.listings.values()))
    assert all(path == join(*path.rpartition(b"/")[::2]) for path in one.sources)
    return [(some, Layer("merged", one.listings, one.opaque, names), tree.moves)]


def end_merge(tree: Tree, merging: list[Merging]) -> None:
    """Put the merged layer in place of the old ones; drop it if there is a new base by now."""
    if merging:
        layers, merged_layer, moves = merging.pop()
        if moves is tree.moves:
            tree.replace(layers, merged_layer)


@settings(max_examples=400, deadline=None)
@given(STEPS, st.sampled_from([b"", b"a", b"elsewhere"]))
@example([("write", [b"b"]), ("look", [b"b"]), ("write", [b"a"]), ("look", [b"a"]), ("remake", [b"a"])], b"")
def test_whatever_happens_in_whatever_order_a_new_job_sees_the_truth_and_an_old_one_what_it_saw(
    steps: list[tuple[str, list[bytes]]], writable_root: bytes
) -> None:
    master = Master(b"a", b"a/a", b"a/b", b"a/a/a", b"b")
    tree = Tree(writable_root, 0)
    views = [tree.open_view()]
    warms: list[Layer | None] = [None]
    sealing: list[tuple[Layer, MovedNames]] = []
    merging: list[Merging] = []
    warming: list[Layer] = []
    held: Layer | None = None
    seen: dict[tuple[int, bytes], dict[bytes, Attr] | None] = {}
    in_flight: list[tuple[bytes, Directory | None]] = []

    def land() -> None:
        while in_flight:
            tree.answered(*in_flight.pop(0))

    def look(index: int, path: bytes) -> None:
        if all(path != asked and not path.startswith(asked + b"/") and asked for asked, _ in in_flight):
            with suppress(LostError):
                shown = merged(tree, master, views[index], path, warms[index])
                assert seen.setdefault((index, path), shown) == shown

    for kind, paths in steps:
        match kind:
            case "look":
                for path in paths:
                    look(len(path) * 7 % len(views), path)
            case "ask":
                parent = paths[0]
                known_above = all(
                    tree.is_known(b"/".join(parent.split(b"/")[:i])) for i in range(parent.count(b"/") + 1)
                )
                if known_above and tree.is_known(b"") and not tree.is_known(parent) and parent not in dict(in_flight):
                    tree.asked(parent)
                    in_flight.append((parent, master.answer(parent)))
            case "answer":
                land()
            case "deliver":
                tree.take_in(master.journal)
            case "open":
                views.append(tree.open_view())
                warms.append(used(tree, held))
            case "begin layer":
                if not sealing and not merging and (layer := begin_layer(tree, paths)):
                    sealing.append((layer, tree.moves))
            case "end layer":
                end_layer(tree, sealing)
            case "merge":
                if not sealing and not merging:
                    merging = begin_merge(tree)
            case "end merge":
                end_merge(tree, merging)
            case "begin warm":
                warming = [begin_warm(tree, paths)]
            case "end warm":
                if warming:
                    held = warming.pop()
                    tree.hold(held.listings)
            case "check":
                tree.take_in(master.journal)
                land()
                view = tree.open_view()
                assert walk(tree, master, view, warm=used(tree, held)) == master.now
                views.append(view)
                warms.append(used(tree, held))
            case _:
                for path in paths:
                    if changes := plausible(master, kind, path):
                        master.change(*changes)
    tree.take_in(master.journal)
    land()
    assert walk(tree, master, tree.open_view(), warm=used(tree, held)) == master.now
    for (index, path), shown in list(seen.items()):
        assert merged(tree, master, views[index], path, warms[index]) == shown


DEEP_PATHS = [b"a", b"b", b"c", b"a/a", b"a/b", b"b/a", b"b/b", b"a/a/a", b"a/a/b", b"b/a/a", b"a/b/a"]
# Steps of long histories, with their weights. "job" compares a whole view with the truth. "opened"
# looks at one directory of a view only, so that others freeze later.
WEIGHTS = {
    "write": 8,
    "mkdir": 3,
    "delete": 4,
    "remake": 3,
    "deliver": 8,
    "job": 8,
    "opened": 3,
    "old": 2,
    "begin layer": 6,
    "end layer": 5,
    "merge": 4,
    "end merge": 4,
    "begin warm": 4,
    "end warm": 3,
}


def live_through(draw: random.Random) -> tuple[int, int]:
    """Return the number of views that had a delta below real layers, and the number of bases."""
    master = Master(b"a", b"a/a", b"a/b", b"a/a/a", b"b")
    tree = Tree(draw.choice([b"", b"", b"a", b"elsewhere"]), 0)
    sealing: list[tuple[Layer, MovedNames]] = []
    merging: list[Merging] = []
    warming: list[Layer] = []
    held: Layer | None = None
    seen: list[tuple[View, Layer | None, Flat]] = []
    above = 0
    seals = draw.random()  # how often changes are made real before a job
    if draw.random() < 0.7:
        walk(tree, master, tree.open_view())
    for kind in [*draw.choices(list(WEIGHTS), list(WEIGHTS.values()), k=draw.randint(5, 60)), "job", "old"]:
        paths = draw.choices(DEEP_PATHS, k=draw.randint(1, 3))
        left_out = [path for path in paths if tree.moves.fresh.get(path) is not WHITEOUT]
        match kind:
            case "deliver":
                tree.take_in(master.journal)
            case "job":
                tree.take_in(master.journal)
                if not sealing and not merging and draw.random() < seals:
                    seal(tree, left_out)
                view = tree.open_view()
                above += view.delta is not None and view.above > 0
                warm = used(tree, held)
                assert walk(tree, master, view, warm=warm) == master.now
                seen.append((view, warm, master.now))
            case "opened":
                view = tree.open_view()
                with suppress(LostError):
                    merged(tree, master, view, draw.choice([b"", b"a", b"b", b"a/a"]), used(tree, held))
            case "old":
                for view, warm, shown in seen[-4:]:
                    assert walk(tree, master, view, warm=warm) == shown
            case "begin layer":
                if not sealing and not merging and (layer := begin_layer(tree, left_out)):
                    sealing.append((layer, tree.moves))
            case "end layer":
                end_layer(tree, sealing)
            case "merge":
                if not sealing and not merging and (layers := len(tree.moves.stack)):
                    count = draw.randint(1, layers)
                    merging = begin_merge(tree, draw.choice([0, layers - count]), count)
                    if draw.random() < 0.5:
                        end_merge(tree, merging)
            case "end merge":
                end_merge(tree, merging)
            case "begin warm":
                warming = [begin_warm(tree, paths)]
            case "end warm":
                if warming:
                    held = warming.pop()
                    tree.hold(held.listings)
            case _:
                for path in paths:
                    if changes := plausible(master, kind, path):
                        master.change(*changes)
    return above, len(tree.bases)


@pytest.mark.parametrize("most_names", [6, DELTA_NAMES])
def test_layers_that_come_and_merge_around_a_delta_hide_and_show_what_is_true(
    most_names: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("termite.fuse.view.view_tree.DELTA_NAMES", most_names)
    monkeypatch.setattr("termite.fuse.view.view_tree.REAL_NAMES", 2 * most_names)
    above = bases = 0
    for seed in range(int(os.environ.get("TERMITE_HISTORIES", "1500"))):
        try:
            counted = live_through(random.Random(seed))
        except (AssertionError, KeyError) as error:
            raise AssertionError(f"seed {seed}") from error
        above, bases = above + counted[0], bases + counted[1] - 1
    assert above > 100, "else this says nothing of deltas below real layers"
    assert bases > 100 or most_names == DELTA_NAMES, "else this says nothing of new bases"
