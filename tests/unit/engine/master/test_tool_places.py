"""Test what is shown to jobs of commands with new environments."""

import os
from collections.abc import Collection
from typing import cast

import pytest

from termite.engine.decide.environment import Environment
from termite.engine.decide.loaded_plugins import Plugins
from termite.engine.master.remote_runs import tool_places
from termite.engine.master.remote_runs.tool_places import ToolPlaces
from termite.engine.tree.master_tree import MasterTree
from termite.engine.tree.tools.tool_homes import ToolPlace


class FakeTree:
    def __init__(self) -> None:
        self.shown: list[set[bytes]] = []

    def show_tools(self, tools: Collection[ToolPlace], directories: Collection[bytes]) -> None:
        self.shown.append({tool.path for tool in tools if tool.is_sealed})


def test_only_so_many_homes_have_their_settings_shown_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_places, "MAX_HOMES", 3)
    tree = FakeTree()
    places = ToolPlaces(cast(MasterTree, tree), Plugins(()))
    for number in range(5):
        for turn in range(2):
            places.show_for(Environment({"HOME": f"/nobody/{number}", "TURN": str(turn)}))
    assert [os.fsencode(f"/nobody/{n}/.gitconfig") in shown for n, shown in enumerate(tree.shown)] == [True] * 3
    places.show_for(Environment({"HOME": "/nobody/9", "PATH": "/nobody/9/bin"}))
    assert tree.shown[3:] == [set()], "its programs are shown all the same"
