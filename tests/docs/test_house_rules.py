"""The rules of the house that a machine can check: sizes, unique names, rooms with a docstring.

STILL_TO_MEND names what breaks a rule today. An entry that is no longer needed fails, too.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.docs.product_code import CHECKOUT, product_modules, product_nodes

MAX_FILE_LINES = 400
MAX_CLASS_LINES = 300
MAX_FUNCTION_LINES = 40
# The parameters of a written `__init__` are counted, without self. A dataclass holds values.
MAX_COLLABORATORS = 6
MAX_FILES = 12  # a folder
SUFFIXES = {".py", ".c", ".h", ".cmake"}

STILL_TO_MEND: set[str] = set()


class PublicName(NamedTuple):
    """A public name is a kind (module, class or function), a name and the file that defines it."""

    kind: str
    name: str
    file: str


def test_the_house_rules_are_kept_but_for_what_is_still_to_mend() -> None:
    broken = {*breaches_of_size(), *breaches_of_constructors(), *breaches_of_names(), *breaches_of_rooms()}
    assert sorted(broken - STILL_TO_MEND) == []
    assert sorted(STILL_TO_MEND - broken) == [], "no longer needed in STILL_TO_MEND"


def test_a_test_that_needs_root_says_so_with_its_mark() -> None:
    """`make test` runs such tests of an ordinary user by sudo, and it knows them by the mark."""
    only_root = re.compile(r"skipif\([^=]*(?:gete?uid\(\) != 0|not IS_ROOT)|skip\([^)]*needs root")
    for path in sorted((CHECKOUT / "tests").rglob("*.py")):
        if path.name not in {"conftest.py", "bench.py", Path(__file__).name}:
            assert not only_root.search(path.read_text()), f"{place(path)}: use pytest.mark.needs_root"


def breaches_of_size() -> Iterator[str]:
    """Yield the files, classes and functions that are too long."""
    for top in ("termite", "native"):
        for path in sorted((CHECKOUT / top).rglob("*")):
            if path.suffix in SUFFIXES and len(path.read_text().splitlines()) > MAX_FILE_LINES:
                yield f"{place(path)}: the file is longer than {MAX_FILE_LINES} lines"
    for path, node in classes():
        if length(node) > MAX_CLASS_LINES:
            yield f"{place(path)}: the class {node.name} is longer than {MAX_CLASS_LINES} lines"
    for path, function in product_nodes():
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)) and length(function) > MAX_FUNCTION_LINES:
            yield f"{place(path)}: the function {function.name} is longer than {MAX_FUNCTION_LINES} lines"


def breaches_of_constructors() -> Iterator[str]:
    """Yield the classes whose constructor takes too many collaborators."""
    for path, node in classes():
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                parameters = [*method.args.posonlyargs, *method.args.args, *method.args.kwonlyargs]
                if len(parameters) - 1 > MAX_COLLABORATORS:
                    yield f"{place(path)}: {node.name} takes more than {MAX_COLLABORATORS} collaborators"


def breaches_of_names() -> Iterator[str]:
    """Yield the names that two modules, two public classes or two public functions share."""
    files = defaultdict(list)
    for public in public_names():
        if not may_be_shared(public):
            files[public.kind, public.name].append(public.file)
    for (kind, name), shared in files.items():
        if len(shared) > 1:
            yield f"the {kind} {name}: {', '.join(shared)}"


def breaches_of_rooms() -> Iterator[str]:
    """Yield the folders that do not say who lives in them, and those that hold too many files."""
    for top in ("termite", "native"):
        for folder in [CHECKOUT / top, *sorted((CHECKOUT / top).rglob("*"))]:
            if not folder.is_dir() or folder.name == "__pycache__":
                continue
            files = [path for path in folder.iterdir() if path.suffix in SUFFIXES]
            if len(files) > MAX_FILES:
                yield f"{place(folder)}: the folder holds more than {MAX_FILES} files"
            if top == "termite" and files and not has_docstring(folder / "__init__.py"):
                yield f"{place(folder)}: __init__.py has no docstring"


def may_be_shared(public: PublicName) -> bool:
    """Return whether a name may occur several times, for one of these reasons."""
    match public.kind:
        case "function":
            # pluggy finds a hook by its name. Each program begins with the `main` of its module.
            return public.name == "main" or public.name.startswith("termite_")
        case "module":
            # Each pure room is called `logic`.
            # A plugin and a front end are named after their build tool, and a subcommand's module
            # after the subcommand.
            of_a_command = ("termite/plugins/", "termite/cli/build_commands/", "termite/cli/subcommands/")
            return public.name == "logic" or (public.file.startswith(of_a_command) and public.name != "plugins")
    return False


def public_names() -> Iterator[PublicName]:
    """Yield each module of the product, and each public class and function at the top of one."""
    for path, module in product_modules():
        yield PublicName("module", path.parent.name if path.name == "__init__.py" else path.stem, place(path))
        for node in module.body:
            match node:
                case ast.ClassDef(name=name) if not name.startswith("_"):
                    yield PublicName("class", name, place(path))
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if not name.startswith("_"):
                    yield PublicName("function", name, place(path))


def classes() -> Iterator[tuple[Path, ast.ClassDef]]:
    """Yield each class of the product with its file."""
    for path, node in product_nodes():
        if isinstance(node, ast.ClassDef):
            yield path, node


def length(node: ast.stmt) -> int:
    """Return the number of lines of a statement."""
    return (node.end_lineno or 0) - node.lineno + 1


def has_docstring(path: Path) -> bool:
    """Return whether the file exists and begins with a docstring."""
    return path.is_file() and ast.get_docstring(ast.parse(path.read_text())) is not None


def place(path: Path) -> str:
    """Return a path as it is below the checkout."""
    return str(path.relative_to(CHECKOUT))
