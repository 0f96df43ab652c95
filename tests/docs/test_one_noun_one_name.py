"""A noun has one name, and a name one meaning: no aliases, plurals of a neighbour, or twins."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.docs.product_code import CHECKOUT, product_modules

SHORTEST_TWIN = 45  # characters of a body; two shorter ones are alike by chance
# Words that once had a second meaning, and the rooms whose names had it.
FORBIDDEN_WORDS = {
    "canonical": ("termite/cli",),  # a form of changes; the path at which a tree is built is its build path
    "placement": ("termite",),  # the question where a command runs (docs/develop/decisions/placement.md)
    "record": ("termite/engine/launch", "termite/fuse"),  # what is kept of a job; key=value is a field
}


def test_an_alias_of_a_type_has_a_name_of_its_own() -> None:
    """Types are the classes and the aliases at the top of a module, private ones included."""
    places = defaultdict(list)
    for path, module in product_modules():
        for name in types_of(module):
            places[name].append(place(path))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_no_module_gives_a_name_of_another_one_a_second_name() -> None:
    """Forbid `Other = Name`, and `from termite.x import name as other`.

    `termite/__init__.py` is the interface of plugins. The modules of system calls are the list of
    all that their room may use.
    """
    found = []
    for path, module in product_modules():
        if path.parent.name == "termite" or path.stem.endswith("_calls"):
            continue
        for node in module.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name(id=old)) if name[0].isupper():
                    found.append(f"{place(path)}: {name} = {old}")
                case ast.ImportFrom(module=str(source), names=names) if source.startswith("termite."):
                    found += [f"{place(path)}: {one.name} as {one.asname}" for one in names if one.asname]
    assert found == []


def test_no_two_names_of_a_room_differ_by_a_plural_only() -> None:
    rooms: dict[Path, set[str]] = defaultdict(set)
    for path, module in product_modules():
        rooms[path.parent] |= {path.stem, *(name for name in types_of(module) if not name.startswith("_"))}
    found = [
        f"{place(room)}: {name} and {plural}"
        for room, names in rooms.items()
        for name in names
        for plural in plurals_of(name)
        if plural in names
    ]
    assert sorted(found) == []


def test_a_word_with_one_meaning_is_in_no_name_that_would_give_it_another_one() -> None:
    found = [
        f"{place(path)}: {name}"
        for path, module in product_modules()
        for name in {*path.relative_to(CHECKOUT).with_suffix("").parts, *names_of(module)}
        for word in words_of(name)
        if place(path).startswith(FORBIDDEN_WORDS.get(word, ()))
    ]
    assert sorted(found) == []


def test_the_words_of_a_name_are_found() -> None:
    assert words_of("_pack_records") == words_of("PackRecord") == ["pack", "record"]


def test_no_two_functions_have_the_same_body() -> None:
    """Two that do the same are one. Hooks are not compared: a plugin imports `termite` only."""
    twins = defaultdict(list)
    for path, module in product_modules():
        for node in module.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("termite_"):
                twins[normal_body(node)].append(f"{place(path)}: {node.name}")
    assert [places for body, places in twins.items() if len(places) > 1 and len(body) > SHORTEST_TWIN] == []


def test_a_body_is_the_same_whatever_its_variables_are_called() -> None:
    one, other, third = (
        normal_body(node)
        for text in (
            'def f(a, b):\n    """Say."""\n    for c in a: print("a long enough text for twins", c, b)',
            "def g(x, y):\n    for z in x: print('a long enough text for twins', z, y)",
            "def h(x, y):\n    for z in y: print('a long enough text for twins', z, x)",
        )
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef)
    )
    assert one == other != third


def types_of(module: ast.Module) -> Iterator[str]:
    """Yield the names of the classes and of the type aliases at the top of a module."""
    for node in module.body:
        match node:
            case ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript() | ast.BinOp()) if is_of_type(name):
                yield name


def names_of(module: ast.Module) -> Iterator[str]:
    """Yield the names of the classes and functions of a module, those of methods too."""
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


def words_of(name: str) -> list[str]:
    """Return the words of a name in small letters, each without the s of a plural."""
    return [word.lower().removesuffix("s") for word in re.findall("[A-Z]?[a-z]+", name)]


def is_of_type(name: str) -> bool:
    """Return whether a name is written as that of a type: a constant has capitals only."""
    letters = name.lstrip("_")
    return letters[:1].isupper() and not letters.isupper()


def plurals_of(name: str) -> tuple[str, ...]:
    """Return the plurals that a name could have."""
    return (f"{name}s", f"{name}es", *([f"{name[:-1]}ies"] if name.endswith("y") else []))


def normal_body(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return a body without its docstring, with its own variables called by their turn."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    text = "\n".join(map(ast.unparse, body))
    if len(text) <= SHORTEST_TWIN:
        return text
    arguments = function.args
    names = {one.arg: f"v{n}" for n, one in enumerate([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs])}
    # A coroutine of this body can be parsed, whatever waits in it.
    parsed = ast.parse("async def _():\n" + "\n".join(f" {line}" for line in text.split("\n")))
    own = [node for node in ast.walk(parsed) if isinstance(node, ast.Name)]
    for node in own:
        if isinstance(node.ctx, ast.Store):
            names.setdefault(node.id, f"v{len(names)}")
    for node in own:
        node.id = names.get(node.id, node.id)
    return ast.unparse(parsed)


def place(path: Path) -> str:
    """Return a path as it is below the checkout."""
    return str(path.relative_to(CHECKOUT))
