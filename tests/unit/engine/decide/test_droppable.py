"""Tests of what may be dropped outside the tree, and of the list in docs/use/reference.md."""

import pytest

from termite.cli.master_command import BUILT_IN_PLUGINS
from termite.engine.decide.loaded_plugins import Plugins
from termite.engine.decide.logic.droppable import DroppablePlaces
from tests.docs.test_reference import codes, rows
from tests.unit.tables import each_row

ROOT = "/home/u/p"
HOME = {"HOME": "/home/u"}
PLUGINS = Plugins(BUILT_IN_PLUGINS)


def built_in(**env: str) -> tuple[str, ...]:
    return PLUGINS.droppable({**HOME, **env})


def droppable(*places: str) -> DroppablePlaces:
    return DroppablePlaces(places, ROOT)


@each_row(
    ("path", "place"),
    [
        ("/home/u/.cache/pip/a", "/home/u/.cache"),
        ("/home/u/.cache", "/home/u/.cache"),
        ("/home/u/.cache2/a", ""),
        ("/usr/lib/python3/__pycache__/a.pyc", "__pycache__"),
        ("/usr/lib/my__pycache__/a.pyc", ""),
        ("/run/hsperfdata_u/17", "hsperfdata_*"),
        ("/srv/out/a", ""),
        ("/", ""),
    ],
)
def test_a_write_belongs_to_a_place_or_to_none(path: str, place: str) -> None:
    assert droppable("/home/u/.cache/", "__pycache__", "hsperfdata_*").place_of(path) == place


@each_row(
    ("pattern", "name", "matches"),
    [
        ("a.b", "a.b", True),
        ("a.b", "axb", False),
        ("a*", "a", True),
        ("a*c", "abbc", True),
        ("a*c", "ab/c", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("*", "x", True),
        ("x[", "x[", True),
    ],
)
def test_a_name_matches_as_a_whole_and_never_two(pattern: str, name: str, matches: bool) -> None:
    for path in (f"/srv/{name}/f", f"/srv/{name}"):
        assert droppable("no-such-name", pattern).place_of(path) == (pattern if matches else "")


@each_row("place", ["", "/", "/home", "/home/u", ROOT, "sub/dir", "~/.cache", "./x"])
def test_a_place_at_or_above_the_tree_and_a_relative_one_are_ignored(place: str) -> None:
    assert droppable(place).place_of("/home/u/out/sub/dir/x") == ""


@each_row(
    "path",
    [
        "/home/u/.cache/ccache/0/1/x.o",
        "/home/u/.cache/clang/ModuleCache/x.pcm",
        "/home/u/.cache/go-build/00/x-d",
        "/home/u/.config/go/telemetry/local/compile.count",
        "/home/u/.ccache/0/x",
        "/home/u/.npm/_cacache/x",
        "/usr/lib/python3/dist-packages/__pycache__/x.pyc",
        "/run/hsperfdata_u/1",
        "/srv/org.llvm.clang.u/ModuleCache/x",
    ],
)
def test_caches_of_programs_are_dropped_by_default(path: str) -> None:
    assert DroppablePlaces(built_in(), ROOT).place_of(path)


@pytest.mark.parametrize("path", ["/home/u/_inst/bin/x", "/home/u/.config/x", "/usr/local/bin/x", "/home/u/.local/x"])
def test_all_else_is_not(path: str) -> None:
    assert not DroppablePlaces(built_in(), ROOT).place_of(path)


def test_variables_of_the_command_say_where_the_caches_are() -> None:
    env = {
        "XDG_CACHE_HOME": "/c/xdg",
        "XDG_CONFIG_HOME": "/c/config",
        "CCACHE_DIR": "/c/ccache",
        "PIP_CACHE_DIR": "/c/pip",
        "npm_config_cache": "/c/npm",
        "GOCACHE": "/c/go",
        "PYTHONPYCACHEPREFIX": "/c/py",
    }
    there = DroppablePlaces(built_in(**env), ROOT)
    for path in ("xdg", "config/go/telemetry", "ccache", "pip", "npm", "go", "py"):
        assert there.place_of(f"/c/{path}/x") == f"/c/{path}"
    assert there.place_of("/home/u/.cache/x") == there.place_of("/home/u/.ccache/x") == ""


def test_without_a_home_only_names_are_left() -> None:
    assert all("/" not in place for place in PLUGINS.droppable({}))


def test_the_reference_lists_what_is_dropped_by_default() -> None:
    described = [code.replace("~", HOME["HOME"]) for row in rows("Writes outside the tree") for code in codes(row[0])]
    assert sorted(described) == sorted(dict.fromkeys(built_in()))
    variables = {code for row in rows("Writes outside the tree") for code in codes(row[1])}
    moved = {name for name in variables if built_in(**{name: "/moved"}) != built_in()}
    assert moved == variables, "every named variable moves its place"
    assert len(variables) == 7
