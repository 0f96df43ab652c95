"""Check how the C files of each folder of `native/` use each other, and how long they are.

The parser is simple: it takes the code's own layout for granted, in which a function begins in the
first column and ends with a `}` there.
"""

import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[3] / "native"
ROOMS = [path.name for path in sorted(NATIVE.iterdir()) if path.is_dir()]
MAX_LINES = 400
MAX_FUNCTION_LINES = 40

Graph = Mapping[str, set[str]]

_NO_CODE = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
_INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)
_FUNCTION = re.compile(r"^([A-Za-z_][^;={}#\n]*?)\b(\w+)\([^;{}]*\)\n\{\n.*?^\}$", re.MULTILINE | re.DOTALL)
_DECLARED_FUNCTION = re.compile(r"^[A-Za-z_][^;={}#\n]*?\b(\w+)\([^;{}]*\);", re.MULTILINE)
_VARIABLE = re.compile(
    r"^(?!static|extern|typedef|return|struct \w+ \{)[a-z_][\w ]*?[ *](\w+)(?:\[[^\]]*\])?(?: =[^;]*)?;", re.MULTILINE
)
_DECLARED_VARIABLE = re.compile(r"^extern [^;()]*?(\w+)(?:\[[^\]]*\])?;", re.MULTILINE)
_SECTION = re.compile(r"^/\* -- (\w+\.c)\b", re.MULTILINE)


def without_text(code: str) -> str:
    """Return the code without its comments and literals; the lines stay the same."""
    return _NO_CODE.sub(lambda found: '""' + "\n" * found[0].count("\n"), code)


def defined_symbols(code: str) -> set[str]:
    """Return the names of the functions and variables that other files can use."""
    bare = without_text(code)
    functions = {found[2] for found in _FUNCTION.finditer(bare) if not found[1].startswith("static")}
    return functions | {found[1] for found in _VARIABLE.finditer(_FUNCTION.sub("", bare))}


def calls_between(sources: Mapping[str, str]) -> Graph:
    """Return which files use a symbol of which other files."""
    owners = {symbol: name for name, code in sources.items() for symbol in defined_symbols(code)}
    graph: dict[str, set[str]] = {}
    for name, code in sources.items():
        used = {owners[word] for word in re.findall(r"\w+", without_text(code)) if word in owners}
        graph[name] = used - {name}
    return graph


def files_of(room: Path) -> list[Path]:
    """Return the files of a folder and of the folders in it."""
    return [path for path in sorted(room.rglob("*")) if path.is_file()]


def includes_between(room: Path) -> Graph:
    """Return which files of our own each file includes; names are relative to `native/`."""
    return {
        str(path.relative_to(NATIVE)): {
            str((path.parent / included).resolve().relative_to(NATIVE))
            for included in _INCLUDE.findall(path.read_text())
        }
        for path in files_of(room)
    }


def find_circle(graph: Graph) -> list[str]:
    """Return the files of one circle, or an empty list if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        return list(circle.args[1])
    return []


def sections_of(header: str) -> dict[str, set[str]]:
    """Return the declared symbols of each section of a room's header, in the header's order."""
    parts = _SECTION.split(header)
    return {
        name: {found[1] for found in _DECLARED_FUNCTION.finditer(without_text(text))}
        | {found[1] for found in _DECLARED_VARIABLE.finditer(without_text(text))}
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def sources_of(room: str) -> dict[str, str]:
    """Return the text of each C file of a folder."""
    return {path.name: path.read_text() for path in files_of(NATIVE / room) if path.suffix == ".c"}


@pytest.mark.parametrize("room", ROOMS)
def test_the_calls_between_the_files_of_a_room_form_no_circle(room: str) -> None:
    assert find_circle(calls_between(sources_of(room))) == []


def test_the_includes_form_no_circle() -> None:
    graph = {name: included for room in ROOMS for name, included in includes_between(NATIVE / room).items()}
    assert all(graph[name] for name in ("launcher/main.c", "sandbox/main.c", "preload/preload.c"))
    assert find_circle(graph) == []


@pytest.mark.parametrize(("room", "header"), [("launcher", "launcher.h"), ("sandbox", "sandbox.h")])
def test_a_rooms_header_has_a_section_for_each_file_and_declares_there_what_the_file_defines(
    room: str, header: str
) -> None:
    sources = sources_of(room)
    defined = {name: defined_symbols(code) for name, code in sources.items()}
    assert defined.pop("main.c") == {"main"}
    assert sections_of((NATIVE / room / header).read_text()) == defined


@pytest.mark.parametrize(("room", "header"), [("launcher", "launcher.h"), ("sandbox", "sandbox.h")])
def test_a_file_uses_only_files_of_earlier_sections(room: str, header: str) -> None:
    order = [*sections_of((NATIVE / room / header).read_text()), "main.c"]
    graph = calls_between(sources_of(room))
    assert graph["main.c"], "nothing was parsed"
    too_late = {name: {used for used in graph[name] if order.index(used) > order.index(name)} for name in order}
    assert {name: used for name, used in too_late.items() if used} == {}


@pytest.mark.parametrize("room", ROOMS)
def test_no_file_and_no_function_is_too_long(room: str) -> None:
    for path in files_of(NATIVE / room):
        code = path.read_text()
        assert code.count("\n") <= MAX_LINES, path.name
        for found in _FUNCTION.finditer(without_text(code)):
            assert found[0].count("\n") + 1 <= MAX_FUNCTION_LINES, (path.name, found[2])


def test_a_circle_is_found() -> None:
    sources = {
        "one.c": "int fd = -1;\n\nvoid first(void)\n{\n    second();\n}\n",
        "two.c": 'static void third(void)\n{\n}\n\nchar *second(int a,\n    int b)\n{\n    return "first";\n}\n',
    }
    assert defined_symbols(sources["one.c"]) == {"fd", "first"}
    assert defined_symbols(sources["two.c"]) == {"second"}
    assert find_circle(calls_between(sources)) == []
    sources["two.c"] += "\nvoid fourth(void)\n{\n    fd = 1; /* third() */\n}\n"
    assert set(find_circle(calls_between(sources))) == {"one.c", "two.c"}
