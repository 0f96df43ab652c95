"""Rooms are described as they are: in their docstrings, in the architecture, in pyproject.toml."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from termite.cli.master_command import BUILT_IN_PLUGINS

CHECKOUT = next(above for above in Path(__file__).resolve().parents if (above / "pyproject.toml").exists())
PROJECT: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
CONTRACTS: dict[str, dict[str, Any]] = {
    contract["name"]: contract for contract in PROJECT["tool"]["importlinter"]["contracts"]
}
ARCHITECTURE = (CHECKOUT / "docs" / "develop" / "architecture.md").read_text()
ROOMS = sorted(path.parent for path in (CHECKOUT / "termite").rglob("__init__.py"))
# The folders of one subcommand a module. Their docstrings lead to that of the parent.
SUBCOMMANDS = CHECKOUT / "termite" / "cli" / "subcommands"

Floors = list[set[str]]


def test_the_docstring_of_a_room_names_each_module_and_what_must_not_be_touched() -> None:
    missing = []
    for room in ROOMS:
        docstring = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
        modules = set(modules_of(room))
        if modules and room.parent != SUBCOMMANDS:
            unnamed = modules - set(re.findall(r"\w+", docstring))
            missing += [f"{room.relative_to(CHECKOUT)}: {name} is not named" for name in sorted(unnamed)]
            if "Do not touch:" not in docstring:
                missing.append(f"{room.relative_to(CHECKOUT)}: no sentence begins with 'Do not touch:'")
    assert missing == []


def test_the_floors_of_the_architecture_are_those_of_the_contracts() -> None:
    commands, products, *engine = table_below("## Rooms")
    assert [commands, products] == floors_of("termite: imports go down")[:2]
    assert engine == floors_of("termite.engine: imports go down")


def test_the_floors_of_the_mirror_are_those_of_the_contract() -> None:
    assert table_below("### Rooms of the mirror process") == floors_of("termite.fuse: imports go down")


def test_the_mirror_may_import_what_its_contract_leaves() -> None:
    contract = CONTRACTS["A mirror knows neither the master, the worker, the fleet nor the rules"]
    forbidden = {name.rpartition(".")[2] for name in contract["forbidden_modules"]}
    sentence = re.search(r"The mirror may import these of the engine, .*?:(.*?)\.\n", ARCHITECTURE, re.DOTALL)
    assert sentence is not None
    assert set(re.findall(r"`(\w+)`", sentence[1])) == set(modules_of(CHECKOUT / "termite" / "engine")) - forbidden


def test_each_room_and_module_of_the_engine_has_a_row() -> None:
    section = ARCHITECTURE.partition("### Rooms of the engine")[2].partition("###")[0]
    rows = {name for row in section.splitlines() for name in names_of(row.partition(" | ")[0])}
    assert rows == set(modules_of(CHECKOUT / "termite" / "engine"))


def test_each_built_in_plugin_is_an_entry_point_too() -> None:
    assert sorted(PROJECT["project"]["entry-points"]["termite"].values()) == sorted(BUILT_IN_PLUGINS)


def modules_of(room: Path) -> Iterator[str]:
    """Yield the names of the modules and the rooms that stand directly in a room."""
    for path in room.iterdir():
        if path.suffix == ".py" and path.stem != "__init__":
            yield path.stem
        elif (path / "__init__.py").exists():
            yield path.name


def floors_of(contract: str) -> Floors:
    """Return the modules on each floor of a contract, the highest first."""
    return [set(layer.split(" | ")) for layer in CONTRACTS[contract]["layers"]]


def table_below(heading: str) -> Floors:
    """Return the modules on each floor of the first table below a heading.

    A row without a floor belongs to the floor above it.
    """
    section = ARCHITECTURE.partition(f"\n{heading}\n")[2].partition("\n#")[0]
    floors: Floors = []
    for row in re.findall(r"^\| (?!floor )(.*)", section, re.MULTILINE):
        floor, _, rest = row.partition(" | ")
        names = names_of(rest.partition(" | ")[0])
        if floor.strip():
            floors.append(names)
        else:
            floors[-1] |= names
    return floors


def names_of(text: str) -> set[str]:
    """Return the last names of the paths in a text: `termite/engine/paths.py` is called paths."""
    return {Path(path).stem for path in re.findall(r"`(termite/[\w/.]+)`", text)}
