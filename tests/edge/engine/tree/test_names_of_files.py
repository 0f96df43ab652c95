"""The table of the names of files, after thousands of changes by chance."""

import random

import pytest

from termite.engine.paths import join
from termite.engine.tree.logic import attrs
from termite.engine.tree.logic.attrs import AttrTree, Seen, Stamp
from tests.unit.engine.tree.test_plan import DIRECTORY, FILE


@pytest.mark.parametrize("few", [0, 1, 8])
@pytest.mark.parametrize("limit", [0, 3, 100])
def test_the_names_of_files_are_those_that_a_look_through_everything_finds(
    limit: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attrs, "NAMES_LIMIT", limit)
    monkeypatch.setattr(attrs, "FEW_NAMES", limit)
    monkeypatch.setattr(attrs, "FEW", few)
    chance = random.Random(limit)
    tree = AttrTree(Seen(DIRECTORY))
    tree.serve(b"", {})
    for _ in range(2000):
        directory, name = chance.choice([b"a", b"b", b"c"]), chance.choice([b"x", b"y", b"z"])
        if not tree.is_served(directory):
            tree.put(directory, Seen(DIRECTORY))
            tree.serve(directory, {name: Seen(FILE, Stamp(1, chance.randrange(9), 1, 1, 1))})
        elif chance.random() < 0.1:
            tree.drop(chance.choice([directory, join(directory, name)]))
        else:
            tree.put(join(directory, name), Seen(FILE, Stamp(1, chance.randrange(9), 1, 1, 1)))
        asked = {(1, chance.randrange(9)), (1, chance.randrange(9))}
        assert tree.names_of(asked) == {
            join(where, name)
            for where in tree.served_within(b"")
            for name, seen in tree.listing(where).items()
            if seen.stamp is not None and seen.stamp.inode in asked
        }
